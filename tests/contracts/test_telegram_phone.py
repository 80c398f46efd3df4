"""The phone page and BotFather, as a person meets them."""

import re

import pytest

from tests.contracts.simulator_process import PUBLIC_URL, running

ALEX = 111222333
TOKEN = re.compile(r"\b\d{8,10}:[A-Za-z0-9_-]{35}(?![\w-])")


@pytest.fixture(scope="module")
def telegram(tmp_path_factory):
    with running("telegram", tmp_path_factory.mktemp("telegram")) as simulator:
        yield simulator


@pytest.fixture
def person(telegram):
    return telegram.http.post("/api/people", json={"name": "Mia Chen"}).json()["id"]


def says(telegram, person, text, chat="BotFather"):
    """Type a text on the phone and return what the bot says last."""
    body = {"person": person, "chat": chat, "text": text}
    assert telegram.http.post("/api/messages", json=body).status_code == 201
    return view(telegram, person, chat)["chat"]["messages"][-1]["text"]


def view(telegram, person, chat):
    return telegram.http.get("/api/view", params={"person": person, "chat": chat}).json()


def new_bot(telegram, person, username):
    says(telegram, person, "/newbot")
    says(telegram, person, "My Helper")
    return token_in(says(telegram, person, username))


def token_in(text):
    return TOKEN.findall(text)[0]


def test_botfather_makes_a_bot_that_works(telegram, person):
    assert says(telegram, person, "/newbot").startswith("Alright, a new bot. How are we going")
    assert "choose a username for your bot" in says(telegram, person, "My Helper")
    done = says(telegram, person, "MyHelper_bot")
    assert done.startswith("Done! Congratulations on your new bot. You will find it at t.me/MyHel")
    assert "Use this token to access the HTTP API:\n" in done
    me = telegram.http.get(f"/bot{token_in(done)}/getMe").json()["result"]
    assert (me["first_name"], me["username"]) == ("My Helper", "MyHelper_bot")


@pytest.mark.parametrize(
    ("username", "reply"),
    [
        ("helper", "Sorry, the username must end in 'bot'."),
        ("my helper bot", "Sorry, this username is invalid."),
        ("BOTFATHER", "Sorry, the username must end in 'bot'."),
        ("Taken_bot", "Sorry, this username is already taken."),
    ],
)
def test_botfather_asks_again_for_a_wrong_username(telegram, person, username, reply):
    telegram.http.post("/_control/bots", json={"name": "x", "username": "taken_bot"})
    says(telegram, person, "/newbot")
    says(telegram, person, "My Helper")
    assert says(telegram, person, username).startswith(reply)
    assert says(telegram, person, f"good_{person}_bot").startswith("Done!")


def test_a_revoked_token_stops_working(telegram, person):
    username = f"revoked_{person}_bot"
    old = new_bot(telegram, person, username)
    assert says(telegram, person, "/revoke").startswith("Choose a bot")
    new = token_in(says(telegram, person, f"@{username}"))
    assert telegram.http.get(f"/bot{old}/getMe").status_code == 401
    assert telegram.http.get(f"/bot{new}/getMe").status_code == 200


def test_a_deleted_bot_is_gone_after_the_confirmation(telegram, person):
    username = f"deleted_{person}_bot"
    token = new_bot(telegram, person, username)
    says(telegram, person, "/deletebot")
    says(telegram, person, f"@{username}")
    assert says(telegram, person, "yes").startswith("Please enter the confirmation text exactly")
    assert says(telegram, person, "Yes, I am totally sure.") == "Done! The bot is gone. /help"
    assert telegram.http.get(f"/bot{token}/getMe").status_code == 401


def test_mybots_shows_buttons_that_lead_to_the_token(telegram, person):
    token = new_bot(telegram, person, f"listed_{person}_bot")
    says(telegram, person, "/mybots")
    for label in (f"@listed_{person}_bot", "API Token"):
        last = view(telegram, person, "BotFather")["chat"]["messages"][-1]
        (button,) = [one for row in last["buttons"] for one in row if one["text"] == label]
        body = {"person": person, "chat": "BotFather", "message": last["id"]}
        telegram.http.post("/api/presses", json=body | {"data": button["callback_data"]})
    assert token in view(telegram, person, "BotFather")["chat"]["messages"][-1]["text"]


def test_nobody_sees_the_bots_of_another_person(telegram, person):
    new_bot(telegram, person, f"private_{person}_bot")
    says(telegram, ALEX, "/revoke")
    assert "private" not in says(telegram, ALEX, f"@private_{person}_bot")


def test_a_start_link_sends_its_payload(telegram, person):
    token = new_bot(telegram, person, f"linked_{person}_bot")
    body = {"person": person, "chat": f"linked_{person}_bot", "payload": "Abc-123_x"}
    assert telegram.http.post("/api/start", json=body).status_code == 201
    (update,) = telegram.http.get(f"/bot{token}/getUpdates").json()["result"]
    assert update["message"]["text"] == "/start Abc-123_x"
    assert update["message"]["from"]["first_name"] == "Mia"


def test_the_view_is_short_until_something_changes(telegram, person):
    first = view(telegram, person, "BotFather")
    asked = {"person": person, "chat": "BotFather", "since": first["version"]}
    assert telegram.http.get("/api/view", params=asked).json() == {"version": first["version"]}
    says(telegram, person, "/help")
    assert "chat" in telegram.http.get("/api/view", params=asked).json()


@pytest.mark.parametrize("path", ["/", "/t.me/some_bot?start=abc"])
def test_the_page_trusts_its_own_script_only(telegram, path):
    page = telegram.http.get(path, headers={"origin": PUBLIC_URL.removesuffix("/dev/page")})
    policy = page.headers["content-security-policy"]
    nonce = re.findall(r"script-src 'nonce-([^']+)'", policy)[0]
    assert page.text.count(f'nonce="{nonce}"') == 2
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href|action)=["']/""", page.text)


def test_the_page_needs_the_token(telegram):
    assert telegram.http.get("/", headers={"x-simulator-token": ""}).status_code == 401
