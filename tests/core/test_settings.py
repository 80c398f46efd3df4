"""Settings: what is read, what is refused, and that the README lists them all."""

import base64
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from openclaw_web.core import settings as module
from openclaw_web.core.errors import SettingsError
from openclaw_web.core.settings import PRODUCTION, Settings, load, problems, require, variable

README = Path(__file__).resolve().parents[2] / "README.md"
KEY = base64.b64encode(bytes(32)).decode()
LOCAL = Settings(
    secret_key=KEY, database_url="postgresql://db/x", redis_url="redis://r", public_url="http://l"
)
LIVE = Settings(
    environment=PRODUCTION,
    host="0.0.0.0",  # noqa: S104 - a container's
    public_url="https://cloud.example",
    secret_key=KEY,
    database_url="postgresql://db/x",
    redis_url="redis://r",
    stripe_secret_key="sk_live_x",  # noqa: S106
    stripe_webhook_secret="whsec_x",  # noqa: S106
    upstream_key="k",
    smtp_url="smtps://mail.example",
    mail_from="OpenClaw Cloud <hello@cloud.example>",
    box_proxy_url="http://proxy.openclaw.svc:3001/proxy/v1",
    proxy_internal_port=3001,
    backup_url="s3://backups/boxes",
    keeper_image="ghcr.io/example/openclaw-cloud:1",
    box_runtime_class="gvisor",
)


def test_the_readme_lists_exactly_our_settings():
    section = README.read_text(encoding="utf-8").split("## Settings", 1)[1].split("\n## ", 1)[0]
    listed = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {variable(known.name) for known in fields(Settings)}


def test_good_settings_may_start():
    assert problems(LOCAL) == []
    assert problems(LIVE) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"secret_key": ""}, "SECRET_KEY"),
        ({"database_url": ""}, "DATABASE_URL"),
        ({"redis_url": ""}, "REDIS_URL"),
        ({"stripe_secret_key": ""}, "STRIPE_SECRET_KEY"),
        ({"stripe_webhook_secret": ""}, "STRIPE_WEBHOOK_SECRET"),
        ({"upstream_key": ""}, "KIMI_API_KEY"),
        ({"smtp_url": ""}, "SMTP_URL"),
        ({"mail_from": Settings.mail_from}, "MAIL_FROM"),
        ({"box_proxy_url": ""}, "BOX_PROXY_URL"),
        ({"backup_url": ""}, "BACKUP_URL"),
        ({"keeper_image": ""}, "KEEPER_IMAGE"),
        ({"box_runtime_class": ""}, "BOX_RUNTIME_CLASS"),
        ({"box_runtime_class": "", "allow_shared_kernel": "no"}, "BOX_RUNTIME_CLASS"),
        ({"proxy_internal_port": 0}, "PROXY_INTERNAL_PORT"),
        ({"proxy_internal_port": 3000}, "PROXY_INTERNAL_PORT"),
        ({"trusted_proxies": "*"}, "TRUSTED_PROXIES"),
        ({"box_proxy_url": "http://127.0.0.1:3000/proxy/v1"}, "BOX_PROXY_URL"),
        ({"stripe_api_url": "http://127.0.0.1:9"}, "STRIPE_API_URL"),
        ({"upstream_url": "http://localhost:9/v1"}, "UPSTREAM_URL"),
        ({"telegram_api_url": "http://[::1]:9"}, "TELEGRAM_API_URL"),
        ({"telegram_api_url": "http://bots.telegram.svc:8081"}, "TELEGRAM_API_URL names a service"),
        ({"telegram_api_url": "http://bots.example:8081"}, "TELEGRAM_API_URL leads to port 8081"),
        ({"box_proxy_url": "http://proxy.openclaw-cloud:3001"}, "BOX_PROXY_URL leads to port 3001"),
        ({"box_proxy_url": "https://proxy.example:8443"}, "BOX_PROXY_URL leads to port 8443"),
        ({"box_proxy_url": "http://proxy.example"}, "BOX_PROXY_URL leads to port 80"),
        ({"box_proxy_url": "proxy.openclaw.svc:3001"}, "BOX_PROXY_URL must be an address"),
        ({"box_proxy_url": "http://proxy.svc:port"}, "BOX_PROXY_URL must be an address"),
        ({"box_proxy_url": "https:///proxy/v1"}, "BOX_PROXY_URL names no host"),
        ({"box_dns_cidrs": "169.254.20.10/33"}, "BOX_DNS_CIDRS must list networks"),
        ({"box_dns_cidrs": "10.0.0.1/8"}, "BOX_DNS_CIDRS must list networks"),
        ({"box_dns_cidrs": "dns.example"}, "BOX_DNS_CIDRS must list networks"),
        ({"box_dns_cidrs": "0.0.0.0/0"}, "BOX_DNS_CIDRS must list networks"),
        ({"telegram_link_url": "http://localhost:3000/dev/phone"}, "TELEGRAM_LINK_URL"),
        ({"public_url": "https://localhost"}, "PUBLIC_URL"),
        ({"public_url": "http://cloud.example"}, "PUBLIC_URL"),
        ({"dev_services": "{}"}, "DEV_SERVICES"),
        ({"environment": "prod"}, "OPENCLAW_CLOUD_ENV"),
    ],
    ids=str,
)
def test_production_refuses_and_names_the_setting(change, name):
    (found,) = problems(replace(LIVE, **change))
    assert found.startswith(name)


@pytest.mark.parametrize(
    "change",
    [
        {"box_proxy_url": "http://proxy.openclaw.svc.cluster.local:3001/proxy/v1"},
        {"box_proxy_url": "https://proxy.example/proxy/v1"},
        {"box_proxy_url": "http://192.0.2.7:3001/proxy/v1"},
        {"telegram_api_url": "https://bots.example"},
        {"box_dns_cidrs": "169.254.20.10, fd00::a/128 10.0.0.0/24"},
        {"box_runtime_class": "", "allow_shared_kernel": "yes"},
    ],
    ids=str,
)
def test_production_starts_with(change):
    assert problems(replace(LIVE, **change)) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"stripe_secret_key": "sk_live_x"}, "STRIPE_SECRET_KEY"),
        ({"host": "0.0.0.0"}, "HOST"),  # noqa: S104 - the point of it
        ({"redis_url": ""}, "REDIS_URL"),
    ],
    ids=str,
)
def test_a_laptop_refuses_what_only_production_may_have(change, name):
    (found,) = problems(replace(LOCAL, **change))
    assert found.startswith(name)


def test_starting_with_problems_tells_all_of_them():
    with pytest.raises(SettingsError, match=r"(?s)SECRET_KEY.*REDIS_URL"):
        require(replace(LOCAL, secret_key="", redis_url=""))


def test_the_environment_wins_over_the_stacks_file(tmp_path):
    (tmp_path / module.STACK_FILE).write_text("PORT=4000\nREDIS_URL=redis://of-the-file\n")
    chosen = load({"OPENCLAW_CLOUD_HOME": str(tmp_path), "PORT": "5000"})
    assert (chosen.port, chosen.redis_url) == (5000, "redis://of-the-file")
    assert chosen.public_url == "http://localhost:5000"


def test_production_never_reads_the_stacks_file(tmp_path):
    (tmp_path / module.STACK_FILE).write_text("STRIPE_SECRET_KEY=sk_test_of_a_laptop\n")
    chosen = load({"OPENCLAW_CLOUD_HOME": str(tmp_path), "OPENCLAW_CLOUD_ENV": PRODUCTION})
    assert chosen.stripe_secret_key == ""


def test_a_public_address_has_no_slash_at_its_end():
    assert load({"PUBLIC_URL": "https://cloud.example/"}).public_url == "https://cloud.example"


def test_a_port_that_is_no_number_is_refused_by_name():
    with pytest.raises(SettingsError, match=r"PORT must be a whole number"):
        load({"PORT": "many"})


def test_the_text_of_settings_holds_no_secret():
    shown = repr(replace(LIVE, redis_url="redis://:hunter2@r"))
    assert "hunter2" not in shown
    assert LIVE.stripe_secret_key not in shown
    assert KEY not in shown
