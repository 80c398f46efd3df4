"""The small pieces that pages are made of."""

import base64
import hashlib
from typing import Any

import reflex as rx

from openclaw_web.ui import headers, shell
from openclaw_web.ui.navigation import leave_to
from openclaw_web.ui.not_found import not_found_page
from openclaw_web.ui.showing import show
from tests.ui.tab import TestClient


class Board(rx.State):
    title: str = "old"
    rows: list[dict[str, str]] = []  # noqa: RUF012 - Reflex copies it for each tab


def new_board() -> Any:
    state: Any = rx.State
    root = state(_reflex_internal_init=True)
    return root.get_substate(Board.get_full_name().split(".")[1:])


def test_what_is_shown_already_is_not_sent_again():
    board = new_board()
    show(board, title="new", rows=[{"a": "1"}])
    assert board.dirty_vars == {"title", "rows"}
    board._clean()  # noqa: SLF001 - what Reflex does once the values are sent
    show(board, title="new", rows=[{"a": "1"}])
    assert board.dirty_vars == set()
    show(board, rows=[{"a": "2"}])
    assert board.dirty_vars == {"rows"}


def test_an_address_cannot_become_a_script():
    event = leave_to('https://example.com/?a="+alert(1)+"')
    assert '\\\\"+alert(1)+\\\\"' in str(event.args)


def test_inline_scripts_are_allowed_by_their_hash_and_no_others(tmp_path):
    (tmp_path / "index.html").write_text(
        '<script src="/a.js"></script><script type="module">let a = 1;</script>'
    )
    policy = headers.content_security_policy(tmp_path)
    digest = base64.b64encode(hashlib.sha256(b"let a = 1;").digest()).decode()
    assert f"script-src 'self' 'unsafe-eval' 'sha256-{digest}';" in policy
    assert "'unsafe-inline'" not in policy.partition("style-src")[0]
    assert "frame-ancestors 'none'" in policy


def test_every_answer_carries_the_headers_unless_it_brings_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(headers, "get_web_dir", lambda: tmp_path)

    async def app(scope, _receive, send):
        own = [(b"x-frame-options", b"SAMEORIGIN")] if scope["path"] == "/own" else []
        await send({"type": "http.response.start", "status": 200, "headers": own})
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(headers.with_security_headers(app))
    plain, own, asset = (client.get(path).headers for path in ("/", "/own", "/assets/a-1.js"))
    assert plain["x-content-type-options"] == "nosniff"
    assert plain["referrer-policy"] == "same-origin"
    assert "default-src 'self'" in plain["content-security-policy"]
    assert (plain["x-frame-options"], own["x-frame-options"]) == ("DENY", "SAMEORIGIN")
    assert "immutable" in asset["cache-control"]
    assert "cache-control" not in plain


def test_every_page_lets_the_keyboard_skip_to_its_content():
    who = rx.Var.create("ada@example.com")
    for page in (
        shell.public_shell(rx.fragment()),
        shell.customer_shell("/usage", who),
        shell.admin_shell("/admin", who),
        not_found_page(),
    ):
        drawn = str(page)
        assert "#content" in drawn
        assert 'id:"content"' in drawn


def test_the_menu_says_where_we_are():
    drawn = str(shell.customer_shell("/usage", rx.Var.create("ada@example.com")))
    assert drawn.count('"aria-current":"page"') == 1
