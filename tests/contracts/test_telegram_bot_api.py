"""The Bot API, as programs meet it."""

import threading
import time

import httpx
import pytest

from tests.contracts.simulator_process import Simulator, running

ALEX = 111222333


@pytest.fixture(scope="module")
def telegram(tmp_path_factory):
    with running("telegram", tmp_path_factory.mktemp("telegram")) as simulator:
        yield simulator


@pytest.fixture
def bot(telegram, request):
    return make_bot(telegram, request.node.name)


class BotClient:
    def __init__(self, telegram: Simulator, made: dict) -> None:
        self.username, self.id, self.token = made["username"], made["id"], made["token"]
        self._telegram = telegram

    def call(self, method: str, **parameters):
        return self._telegram.http.post(f"/bot{self.token}/{method}", json=parameters)

    def result(self, method: str, **parameters):
        answer = self.call(method, **parameters)
        assert answer.json()["ok"], answer.text
        return answer.json()["result"]

    def hears(self, text: str, person: int = ALEX):
        body = {"from": person, "bot": self.username, "text": text}
        return self._telegram.http.post("/_control/messages", json=body).json()

    def chat(self, person: int = ALEX):
        asked = {"bot": self.username, "person": person}
        return self._telegram.http.get("/_control/messages", params=asked).json()


def make_bot(telegram: Simulator, seed: str) -> BotClient:
    body = {"name": "Helper", "username": f"a{abs(hash(seed)) % 10**12}_bot"}
    answer = telegram.http.post("/_control/bots", json=body)
    assert answer.status_code == 200, answer.text
    return BotClient(telegram, answer.json())


@pytest.mark.parametrize(
    ("path", "status", "description"),
    [
        (f"/bot123456789:{'A' * 35}/getMe", 401, "Unauthorized"),
        ("/botnonsense/getMe", 404, "Not Found"),
    ],
    ids=["unknown token", "no token at all"],
)
def test_a_wrong_token_is_refused(telegram, path, status, description):
    answer = telegram.http.get(path)
    assert answer.status_code == status
    assert answer.json() == {"ok": False, "error_code": status, "description": description}


def test_an_unknown_method_is_not_found(bot):
    answer = bot.call("sendRocket")
    assert answer.json() == {"ok": False, "error_code": 404, "description": "Not Found"}


def test_every_way_to_send_parameters_works(telegram, bot):
    bot.hears("/start")
    path, fields = f"/bot{bot.token}/sendMessage", {"chat_id": str(ALEX), "text": "hi"}
    sent = [
        telegram.http.get(path, params=fields),
        telegram.http.post(path, json=fields),
        telegram.http.post(path, data=fields),
        telegram.http.post(path, files={key: (None, value) for key, value in fields.items()}),
    ]
    assert [answer.json()["result"]["text"] for answer in sent] == ["hi"] * 4


def test_the_bot_introduces_itself(bot):
    me = bot.result("getMe")
    assert (me["id"], me["is_bot"], me["username"]) == (bot.id, True, bot.username)


def test_an_update_stays_until_it_is_confirmed(bot):
    bot.hears("/start a-payload")
    (update,) = bot.result("getUpdates")
    message = update["message"]
    assert message["from"]["id"] == message["chat"]["id"] == ALEX
    assert message["entities"] == [{"type": "bot_command", "offset": 0, "length": 6}]
    assert bot.result("getUpdates") == [update]
    assert bot.result("getUpdates", offset=update["update_id"] + 1) == []
    assert bot.result("getUpdates") == []


def test_a_long_poll_returns_as_soon_as_someone_writes(bot):
    timer = threading.Timer(0.2, bot.hears, ["are you there?"])
    timer.start()
    began = time.monotonic()
    (update,) = bot.result("getUpdates", timeout=20)
    timer.join()
    assert update["message"]["text"] == "are you there?"
    assert time.monotonic() - began < 5


def test_a_second_poller_ends_the_first(bot):
    first = {}
    older = threading.Thread(target=lambda: first.update(bot.call("getUpdates", timeout=20).json()))
    older.start()
    time.sleep(0.2)
    assert bot.call("getUpdates").status_code == 200
    older.join(timeout=5)
    assert first["error_code"] == 409
    assert first["description"].startswith("Conflict: terminated by other getUpdates request")


def test_a_webhook_and_polling_exclude_each_other(bot):
    assert bot.result("setWebhook", url="https://example.com/hook") is True
    assert bot.result("getWebhookInfo")["url"] == "https://example.com/hook"
    assert bot.call("getUpdates").json()["error_code"] == 409
    bot.result("deleteWebhook")
    assert bot.result("getWebhookInfo")["url"] == ""
    assert bot.result("getUpdates") == []


@pytest.mark.parametrize(
    ("person", "code", "description"),
    [
        (ALEX, 403, "Forbidden: bot can't initiate conversation with a user"),
        (5, 400, "Bad Request: chat not found"),
        ("", 400, "Bad Request: chat_id is empty"),
    ],
    ids=["never started", "unknown", "empty"],
)
def test_a_bot_cannot_write_first(bot, person, code, description):
    answer = bot.call("sendMessage", chat_id=person, text="hello")
    assert answer.status_code == code
    assert answer.json()["description"] == description


def test_a_blocked_bot_cannot_write(telegram, bot):
    bot.hears("/start")
    telegram.http.post("/api/blocks", json={"person": ALEX, "chat": bot.username})
    answer = bot.call("sendMessage", chat_id=ALEX, text="hello")
    assert answer.json()["description"] == "Forbidden: bot was blocked by the user"


@pytest.mark.parametrize(
    ("parameters", "description"),
    [
        ({"text": "  "}, "message text is empty"),
        ({"text": "x" * 4097}, "message is too long"),
        ({"text": "x", "parse_mode": "RTF"}, "unsupported parse_mode"),
        ({"text": "<b>x", "parse_mode": "HTML"}, "can't parse entities: Can't find end tag"),
        (
            {"text": "<hr>", "parse_mode": "HTML"},
            'can\'t parse entities: Unsupported start tag "hr"',
        ),
        ({"text": "1.", "parse_mode": "MarkdownV2"}, "can't parse entities: Character '.' is"),
        ({"text": "x", "reply_markup": "{"}, "can't parse reply_markup JSON object"),
    ],
    ids=["empty", "long", "mode", "open tag", "unknown tag", "markdown", "markup"],
)
def test_a_message_that_telegram_would_refuse_is_refused(bot, parameters, description):
    bot.hears("/start")
    answer = bot.call("sendMessage", chat_id=ALEX, **parameters)
    assert answer.status_code == 400
    assert answer.json()["description"].startswith(f"Bad Request: {description}")


@pytest.mark.parametrize(
    ("mode", "source"),
    [
        ("HTML", "😀 <b>bold <i>both</i></b> &lt;3 <code>x</code>"),
        ("MarkdownV2", "😀 *bold _both_* <3 `x`"),
    ],
)
def test_formatting_becomes_entities_counted_in_utf16(bot, mode, source):
    bot.hears("/start")
    sent = bot.result("sendMessage", chat_id=ALEX, text=source, parse_mode=mode)
    assert sent["text"] == "😀 bold both <3 x"
    assert sorted((one["type"], one["offset"], one["length"]) for one in sent["entities"]) == [
        ("bold", 3, 9),
        ("code", 16, 1),
        ("italic", 8, 4),
    ]


def test_a_message_can_be_edited_but_not_into_itself(bot):
    bot.hears("/start")
    sent = bot.result("sendMessage", chat_id=ALEX, text="one")
    place = {"chat_id": ALEX, "message_id": sent["message_id"]}
    assert bot.result("editMessageText", **place, text="two")["text"] == "two"
    again = bot.call("editMessageText", **place, text="two")
    assert "message is not modified" in again.json()["description"]
    assert [one["text"] for one in bot.chat()] == ["/start", "two"]


def test_typing_needs_a_known_action(bot):
    bot.hears("/start")
    assert bot.result("sendChatAction", chat_id=ALEX, action="typing") is True
    assert bot.call("sendChatAction", chat_id=ALEX, action="juggling").status_code == 400


def test_commands_are_kept_by_scope(bot):
    commands = [{"command": "help", "description": "Show available commands."}]
    private = {"type": "all_private_chats"}
    assert bot.result("setMyCommands", commands=commands, scope=private) is True
    assert bot.result("getMyCommands") == []
    assert bot.result("getMyCommands", scope=private) == commands
    bot.result("deleteMyCommands", scope=private)
    assert bot.result("getMyCommands", scope=private) == []


def test_a_fault_answers_as_often_as_asked(telegram, bot):
    fault = {"method": "getChat", "error_code": 429, "description": "Too Many Requests: retry"}
    telegram.http.post("/_control/faults", json=fault | {"retry_after": 3, "times": 2})
    bot.hears("/start")
    answers = [bot.call("getChat", chat_id=ALEX) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].json()["parameters"] == {"retry_after": 3}


def test_everything_is_there_again_after_a_kill(tmp_path):
    with running("telegram", tmp_path) as telegram:
        bot = make_bot(telegram, "kept")
        bot.hears("/start")
        telegram.restart(9)
        assert bot.result("getUpdates")[0]["message"]["text"] == "/start"
        assert bot.result("sendMessage", chat_id=ALEX, text="back again")["text"] == "back again"
        assert telegram.rss_megabytes() < 50


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": "https://evil.example"}, 403),
        ({"host": "evil.example"}, 421),
        ({"content-type": "text/plain"}, 415),
        ({"x-simulator-token": "wrong"}, 401),
    ],
    ids=["foreign origin", "wrong host", "simple request", "no token"],
)
def test_web_pages_of_others_are_kept_out(telegram, headers, status):
    answer = telegram.http.post("/_control/bots", content=b'{"username":"x_bot"}', headers=headers)
    assert answer.status_code == status


def test_the_bot_api_needs_no_control_token(telegram, bot):
    answer = httpx.get(f"{telegram.url}/bot{bot.token}/getMe", trust_env=False)
    assert answer.json()["ok"] is True
