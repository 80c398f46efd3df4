"""HTML: the frame of a page, and the small parts that several pages share."""

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from starlette.responses import HTMLResponse

from simulators.stripe import cards
from simulators.stripe.store import Json

FOLDER = Path(__file__).with_name("templates")
SCRIPT = (
    "for(const f of document.forms)f.addEventListener('submit',e=>{const b=e.submitter;"
    "if(b&&b.id==='pay')setTimeout(()=>{b.disabled=true;b.textContent='Processing\\u2026'})});"
    "addEventListener('pageshow',()=>{const b=document.getElementById('pay');"
    "if(b&&b.disabled){b.disabled=false;b.textContent=b.dataset.text||'Subscribe'}});"
)
SCRIPT_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
HEADERS = {
    # No form-action: browsers would hold it against the redirect to the shop as well.
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{SCRIPT_HASH}';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
GOOD = frozenset({"active", "paid", "delivered", "complete", "trialing"})
BAD = frozenset({"past_due", "unpaid", "canceled", "failed", "incomplete", "incomplete_expired"})


def page(template: str, title: str, status: int = 200, **values: object) -> HTMLResponse:
    """Return a page; values are text to be escaped, unless they are already `Html`."""
    content = _template(template).substitute({key: text(value) for key, value in values.items()})
    whole = _template("page.html").substitute(
        title=escape(title),
        style=(FOLDER / "style.css").read_text(encoding="utf-8"),
        script=SCRIPT,
        content=content,
    )
    return HTMLResponse(whole, status_code=status, headers=HEADERS)


class Html(str):
    """Markup that is ready to be put into a page."""

    __slots__ = ()


def text(value: object) -> Html:
    return value if isinstance(value, Html) else Html(escape(str(value)))


def join(parts: Iterable[Html]) -> Html:
    return Html("\n".join(parts))


def tag(name: str, content: object, **attributes: object) -> Html:
    """Return an element; `class_` stands for `class`, a False attribute is left out."""
    written = "".join(
        f' {key.rstrip("_")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not False
    )
    return Html(f"<{name}{written}>{text(content)}</{name}>")


def problem(message: str | None) -> Html:
    return tag("div", message, class_="problem", role="alert") if message else Html("")


def badge(status: str) -> Html:
    kind = "good" if status in GOOD else "bad" if status in BAD else ""
    return tag("span", status.replace("_", " "), class_=f"badge {kind}".strip())


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> Html:
    """Return a table, or a sentence when there is nothing to show."""
    lines = [Html("".join(tag("td", cell) for cell in row)) for row in rows]
    if not lines:
        return tag("p", empty, class_="empty")
    head = tag("tr", Html("".join(tag("th", one) for one in heads)))
    body = join(tag("tr", line) for line in lines)
    return tag("table", Html(tag("thead", head) + tag("tbody", body)), class_="stack")


def card_picker(chosen: str | None) -> Html:
    """Return the test cards as radio buttons, the first or the chosen one checked."""
    checked = chosen if chosen in cards.BY_NUMBER else cards.CARDS[0].number
    return join(_card(card, is_checked=card.number == checked) for card in cards.CARDS)


def _card(card: cards.Card, *, is_checked: bool) -> Html:
    mark = " checked" if is_checked else ""
    radio = Html(f'<input type="radio" name="card" value="{card.number}"{mark}>')
    words = tag("div", Html(tag("b", card.spaced) + tag("span", card.story)))
    brand = tag("span", card.brand, class_="brand")
    return tag("label", Html(radio + words + brand), class_="card")


def card_on_file(method: Json | None) -> Html:
    if method is None:
        return tag("p", "No card on file.", class_="empty")
    card = method["card"]
    words = f"{card['brand'].capitalize()} •••• {card['last4']}"
    expires = f"expires {card['exp_month']:02d}/{card['exp_year']}"
    return Html(tag("p", Html(tag("b", words) + " " + tag("span", expires, class_="soft small"))))


def moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %Y, %H:%M:%S}"


@cache
def _template(name: str) -> Template:
    return Template((FOLDER / name).read_text(encoding="utf-8"))
