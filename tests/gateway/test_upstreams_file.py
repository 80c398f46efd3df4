"""Which providers there are: three settings in the simple case, else a file that is checked."""

from pathlib import Path
from typing import Any

import pytest

from openclaw_web.billing.tiers import plans
from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import PRODUCTION, Settings, problems
from openclaw_web.gateway import upstreams
from openclaw_web.gateway.errors import Form
from openclaw_web.gateway.providers import Providers
from openclaw_web.integrations.upstream import Limits, TimeOuts
from tests.gateway.certificates import make_certificate

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "upstreams.md"
KIMI = "https://api.kimi.com/coding/v1"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a file and reads it as the settings would."""
    monkeypatch.setenv("KEY_ONE", "sk-one")
    monkeypatch.setenv("KEY_TWO", "sk-two")
    monkeypatch.setenv("KEY_BAD", "sk one")
    monkeypatch.delenv("KEY_NONE", raising=False)

    def read(text, **settings):
        path = tmp_path / "upstreams.toml"
        path.write_text(text, encoding="utf-8")
        return upstreams.load(Settings(upstreams_file=str(path), **settings))

    return read


def test_one_provider_by_settings_serves_both_forms_at_one_address():
    (config,) = upstreams.load(
        Settings(
            upstream_url="https://models.example/v1/",
            upstream_key="sk-one, sk-two,",
            upstream_model="their-model",
        )
    )
    assert (config.name, config.keys) == ("models.example", ("sk-one", "sk-two"))
    assert config.openai_url == config.anthropic_url == "https://models.example/v1"
    assert config.models == {"k2p5": "their-model"}
    assert "sk-" not in repr(config)


def test_providers_that_we_know_need_an_address_and_a_key_only():
    (kimi,) = upstreams.load(Settings(upstream_key="sk-kimi"))
    assert (kimi.name, kimi.anthropic_url) == ("kimi-coding", "https://api.kimi.com/coding/v1")
    assert (kimi.models["k2p5"], kimi.models["k3"]) == ("kimi-for-coding", "k3")
    (moonshot,) = upstreams.load(
        Settings(upstream_url="https://api.moonshot.ai/v1", upstream_key="sk-x")
    )
    assert moonshot.anthropic_url == "https://api.moonshot.ai/anthropic/v1"
    assert (moonshot.anthropic_auth, moonshot.models["k2p5"]) == ("bearer", "kimi-k2.7-code")


def test_what_the_alias_means_can_be_set_at_a_provider_that_we_know():
    (kimi,) = upstreams.load(Settings(upstream_key="sk-kimi", upstream_model="k3"))
    assert kimi.models["k2p5"] == "k3"


@pytest.mark.parametrize("name", ["kimi-coding", "moonshot"])
def test_providers_that_we_know_have_every_model_that_we_sell(write, name):
    (config,) = write(f'[[upstreams]]\nname = "a"\nkind = "{name}"\nkeys_env = ["KEY_ONE"]\n')
    assert {model for plan in plans() for model in plan.models} <= set(config.models)


def test_a_name_means_what_the_first_provider_calls_it(write):
    text = """
    [[upstreams]]
    name = "second"
    kind = "moonshot"
    priority = 2
    keys_env = ["KEY_TWO"]
    [[upstreams]]
    name = "first"
    kind = "kimi-coding"
    keys_env = ["KEY_ONE"]
    """
    providers = Providers(write(text))
    for asked in ("k2p5", "kimi-coding/k2p5", "kimi-for-coding", "kimi-k2.7-code"):
        assert providers.model_for(asked) == "kimi-for-coding"
    assert providers.model_for("k3") == "k3"
    assert providers.model_for("something-new") == "something-new"
    routes = providers.choose(Form.OPENAI, "k3")
    assert [(route.upstream, route.model) for route in routes] == [
        ("first", "k3"),
        ("second", "kimi-k3"),
    ]


def test_a_file_may_set_everything(write, tmp_path):
    make_certificate(tmp_path).rename(tmp_path / "ca.pem")
    (config,) = write(
        """
        [[upstreams]]
        name = "our-own"
        openai_url = "https://models.example:8443/v1"
        anthropic_url = "https://models.example:8443/anthropic"
        anthropic_auth = "bearer"
        keys_env = ["KEY_ONE", "KEY_TWO"]
        priority = 3
        passes_other_models = false
        ca_file = "ca.pem"
        connect_seconds = 2
        first_byte_seconds = 30.5
        idle_seconds = 5
        max_connections = 10
        wait_seconds = 0.5
        [upstreams.models]
        k2p5 = "qwen3"
        """
    )
    assert config == upstreams.UpstreamConfig(
        name="our-own",
        openai_url="https://models.example:8443/v1",
        anthropic_url="https://models.example:8443/anthropic/v1",
        anthropic_auth="bearer",
        keys=("sk-one", "sk-two"),
        priority=3,
        passes_other_models=False,
        ca_file=str(tmp_path / "ca.pem"),
        time_outs=TimeOuts(connect=2, first_byte=30.5, idle=5),
        limits=Limits(connections=10, wait_seconds=0.5),
        models={"k2p5": "qwen3"},
    )


ENTRY = '[[upstreams]]\nname = "a"\nopenai_url = "https://a.example"\n'


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("nonsense", "", "is no TOML: Expected"),
        ("", "", "at least one [[upstreams]] is needed"),
        ("upstream = 1\n" + ENTRY, ":1:", "`upstream` is unknown"),
        (ENTRY + "priority = true\n", ":4:", "upstreams[0] priority: Expected `int`, got `bool`"),
        (ENTRY + "prio = 1\n", ":4:", "unknown field `prio`"),
        ('[[upstreams]]\nopenai_url = "https://a"\n', ":1:", "missing required field `name`"),
        (ENTRY + ENTRY.replace("[[upstreams]]\n", ""), "", "is no TOML"),
        (ENTRY + ENTRY, "", "two upstreams are called 'a'"),
        ('[[upstreams]]\nname = "A b"\nkind = "moonshot"\n', ":2:", "name: small letters"),
        ('[[upstreams]]\nname = "a"\n', ":1:", "openai_url, anthropic_url or a known kind"),
        (ENTRY + 'kind = "openai"\n', ":4:", "'openai' is unknown; there are kimi-coding, moon"),
        (ENTRY.replace("https", "ftp"), ":3:", "openai_url: 'ftp://a.example' is no http(s)"),
        (ENTRY.replace("a.example", "a.example/?x"), ":3:", "openai_url may have no user,"),
        (ENTRY.replace("a.example", "u:secret@a"), ":3:", "openai_url may have no user,"),
        (ENTRY.replace("a.example", "a:99999"), ":3:", "is no http(s) address"),
        (ENTRY + '\n\nkeys_env = ["KEY_NONE"]\n', ":6:", "the environment has no KEY_NONE"),
        (ENTRY + 'keys_env = ["KEY_BAD"]\n', ":4:", "KEY_BAD holds a key with a blank"),
        (ENTRY + 'ca_file = "missing.pem"\n', ":4:", "missing.pem is no file of certificates"),
        (ENTRY + "idle_seconds = 0\n", ":4:", "idle_seconds: Expected `float` > 0.0"),
        (ENTRY + "max_connections = 0\n", ":4:", "max_connections: Expected `int` >= 1"),
        (ENTRY + '[upstreams.models]\nk3 = ""\n', ":4:", "models: '' is no model's name"),
        (ENTRY.replace('"a"', '"b"') + ENTRY + "priority = 'x'\n", ":7:", "upstreams[1] priority"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(write, tmp_path, text, line, problem):
    with pytest.raises(SettingsError) as refused:
        write(text)
    said = str(refused.value)
    assert said.startswith(f"UPSTREAMS_FILE: {tmp_path / 'upstreams.toml'}{line}")
    assert problem in said
    assert "secret" not in said
    assert "sk one" not in said


def test_all_that_is_wrong_is_said_at_once(write):
    with pytest.raises(SettingsError) as refused:
        write(ENTRY + "prio = 1\n" + ENTRY.replace("https", "ftp"))
    assert len(str(refused.value).splitlines()) == 2


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"UPSTREAMS_FILE: .*missing\.toml cannot be read"):
        upstreams.load(Settings(upstreams_file=str(tmp_path / "missing.toml")))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"upstream_url": "models.example"}, "UPSTREAM_URL: 'models.example' is no http"),
        ({"upstream_key": "sk-\u00e9"}, "KIMI_API_KEY holds a key with"),
        ({"upstream_ca_file": "/missing"}, "UPSTREAM_CA_FILE: /missing is no file"),
    ],
)
def test_settings_that_cannot_work_are_named(fields, problem):
    with pytest.raises(SettingsError) as refused:
        upstreams.load(Settings(**fields))
    assert problem in str(refused.value)
    assert "sk-" not in str(refused.value)


def test_production_takes_keys_from_the_file_and_refuses_simulators(write):
    live: dict[str, Any] = {"environment": PRODUCTION}
    assert not any("KIMI" in one for one in problems(Settings(upstreams_file="x", **live)))
    assert any("KIMI" in one for one in problems(Settings(**live)))
    with pytest.raises(SettingsError, match="production refuses simulators"):
        write(ENTRY.replace("a.example", "localhost:3000"), **live)


def test_the_example_in_the_document_is_right(write, monkeypatch, tmp_path):
    make_certificate(tmp_path).rename(tmp_path / "ca.pem")
    for name in ("KIMI_API_KEY", "KIMI_API_KEY_2", "MOONSHOT_API_KEY"):
        monkeypatch.setenv(name, "sk-x")
    text = DOCUMENT.read_text(encoding="utf-8").split("```toml", 1)[1].split("```", 1)[0]
    configs = write(text)
    assert [config.name for config in configs] == ["kimi", "moonshot", "our-own"]
    assert configs[0].openai_url == KIMI
