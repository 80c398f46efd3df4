"""HTML: the frame of a page, and the small parts that several pages share."""

import base64
import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from pathlib import Path
from string import Template

from starlette.responses import HTMLResponse

from simulators.stripe import cards
from simulators.stripe.store import Json

Fields = dict[str, str]  # of a form that was sent

EXPIRY = re.compile(r"(0?[1-9]|1[0-2])\s*/?\s*(?:20)?(\d\d)")
EXPIRY_SHOWN = "12 / 34"
CENTURY = 2000
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
GOOD = frozenset({"active", "paid", "delivered", "complete", "trialing", "won", "succeeded"})
BAD = frozenset(
    {
        "canceled",
        "disputed",
        "failed",
        "incomplete",
        "incomplete_expired",
        "lost",
        "needs_response",
        "past_due",
        "unpaid",
    }
)


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


def tag(name: str, content: object, /, **attributes: object) -> Html:
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


def card_form(fields: Fields, *, name: str = "Test card") -> Html:
    """Return the test cards as radio buttons with an expiry date, as they were last chosen."""
    chosen = fields.get("card")
    checked = chosen if chosen in cards.BY_NUMBER else cards.CARDS[0].number
    picker = join(_card(card, is_checked=card.number == checked) for card in cards.CARDS)
    legend = tag("legend", name)
    expiry = text(fields.get("expires", EXPIRY_SHOWN))
    return Html(
        f'<fieldset>{legend}<div class="cards">{picker}</div></fieldset>'
        '<div class="field short"><label for="expires">Expires</label>'
        '<input id="expires" name="expires" type="text" inputmode="numeric" required'
        f' autocomplete="cc-exp" placeholder="MM / YY" maxlength="7" value="{expiry}"></div>'
    )


def read_card(fields: Fields, now: int) -> tuple[cards.Card, tuple[int, int]] | str:
    """Return the chosen card and its month and year, or what is wrong, in one sentence."""
    card = cards.BY_NUMBER.get(fields.get("card", ""))
    if card is None:
        return "Choose a test card."
    match = EXPIRY.fullmatch(fields.get("expires", EXPIRY_SHOWN).strip())
    if match is None:
        return "Your card's expiration date is incomplete."
    expires = (int(match[1]), CENTURY + int(match[2]))
    if cards.is_over(expires, now):
        return "Your card's expiration date is in the past."
    return card, expires


def _card(card: cards.Card, *, is_checked: bool) -> Html:
    mark = " checked" if is_checked else ""
    radio = Html(f'<input type="radio" name="card" value="{card.number}"{mark}>')
    words = tag("div", Html(tag("b", card.spaced) + tag("span", card.story)))
    brand = tag("span", card.brand, class_="brand")
    return tag("label", Html(radio + words + brand), class_="card")


def card_on_file(method: Json | None, now: int) -> Html:
    if method is None:
        return tag("p", "No card on file.", class_="empty")
    card = method["card"]
    words = f"{card['brand'].capitalize()} •••• {card['last4']}"
    is_over = cards.is_over(cards.expiry_of(method), now)
    expiry = f"{'expired' if is_over else 'expires'} {card['exp_month']:02d}/{card['exp_year']}"
    shown = tag("span", expiry, class_="badge bad" if is_over else "soft small")
    return tag("p", Html(tag("b", words) + " " + shown))


def hidden(**fields: str) -> Html:
    return join(
        Html(f'<input type="hidden" name="{name}" value="{text(value)}">')
        for name, value in fields.items()
    )


def message(
    title: str, words: str, status: int, link: tuple[str, str | None] | None = None
) -> HTMLResponse:
    """Return a page that says one thing, and where to go from there."""
    button = anchor(*link, class_="button") if link else Html("")
    return page("message.html", title, status, heading=title, text=words, link=button)


def anchor(words: str, address: str | None, class_: str) -> Html:
    return tag("a", words, href=address, class_=class_) if address else Html("")


def moment(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%d %b %Y, %H:%M:%S}"


@cache
def _template(name: str) -> Template:
    return Template((FOLDER / name).read_text(encoding="utf-8"))
