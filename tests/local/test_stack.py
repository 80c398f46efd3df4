"""What a stack consists of, and the file that tells every other process."""

import json
import stat

import pytest

from openclaw_web.core.settings import read_stack_file
from openclaw_web.local import places, stack
from openclaw_web.local.stack import Stack


@pytest.fixture
def make_stack(passable_path):
    def make(**environment):
        ports = {name: 20_000 + number for number, name in enumerate(stack.PORT_NAMES)}
        opened = places.open_places(passable_path / "home")
        return Stack(places=opened, port=3000, ports=ports, environment=environment)

    return make


def test_the_stack_file_is_for_its_owner_only(make_stack):
    made = make_stack()

    stack.write_settings(made)

    assert stat.S_IMODE(made.places.stack_file.stat().st_mode) == 0o600


def test_secrets_are_the_same_after_a_restart(make_stack):
    first, second = stack.settings_of(make_stack()), stack.settings_of(make_stack())

    assert first == second
    assert first["SECRET_KEY"]


def test_every_secret_lies_in_a_private_file(make_stack):
    made = make_stack()
    stack.settings_of(made)

    found = list(made.places.secrets.iterdir())

    assert found
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in found)


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("DATABASE_URL", "postgresql://me@db/mine", "postgres"),
        ("REDIS_URL", "redis://elsewhere/0", "valkey"),
        ("STRIPE_SECRET_KEY", "sk_test_mine", "stripe"),
        ("KIMI_API_KEY", "sk-mine", "kimi"),
        ("UPSTREAM_URL", "https://models.example/v1", "kimi"),
        ("UPSTREAMS_FILE", "/etc/upstreams.toml", "kimi"),
        ("TELEGRAM_API_URL", "https://api.telegram.org", "telegram"),
        ("SMTP_URL", "smtp://mail.example", "mail"),
    ],
)
def test_what_the_environment_names_is_used_and_not_started(make_stack, name, value, part):
    made = make_stack(**{name: value})

    stack.write_settings(made)

    assert part not in {one.name for one in stack.services_of(made)}
    assert read_stack_file(made.places.home)[name] == value


@pytest.mark.parametrize("given", [{}, {"KUBECONFIG": "/home/me/.kube/config"}])
def test_only_the_worker_is_told_where_the_cluster_is(make_stack, given):
    made = make_stack(**given)
    stack.write_settings(made)
    running = [one for one in stack.services_of(made) if one.name not in {"postgres", "valkey"}]
    told = {one.name: (one.prepare().environment or {}).get("KUBECONFIG") for one in running}

    assert "KUBECONFIG" not in read_stack_file(made.places.home)
    assert ("kubernetes" in told) == (not given)
    assert {"web", "prepare", "worker"} <= set(told)
    assert told.pop("worker") == str(made.kubeconfig)
    assert set(told.values()) == {None}
    assert str(made.kubeconfig) == given.get("KUBECONFIG", f"{made.places.home}/kubeconfig")


def test_a_real_stripe_is_not_asked_at_a_simulators_address(make_stack):
    given = {"STRIPE_SECRET_KEY": "sk_test_mine"}

    made = stack.settings_of(make_stack(**given))

    assert "STRIPE_API_URL" not in made
    assert "stripe" not in json.loads(made["DEV_SERVICES"])


def test_without_simulators_there_are_no_dev_pages(make_stack):
    given = {names[0]: "given" for part, names in stack.REPLACED_BY.items() if part in stack.PAGES}

    assert "DEV_SERVICES" not in stack.settings_of(make_stack(**given))


def test_no_password_is_on_a_command_line(make_stack):
    made = make_stack()
    secrets = {one.read_text() for one in made.places.secrets.iterdir()}
    stack.settings_of(made)

    words = [
        word
        for service in stack.services_of(made)
        if service.name != "postgres"  # preparing it would run initdb
        for word in service.prepare().words
    ]

    assert not [word for word in words if any(secret in word for secret in secrets)]
