"""How the web process serves."""

import os
from dataclasses import replace

import pytest

from openclaw_web.core.settings import PRODUCTION, settings
from openclaw_web.gateway import stopping
from openclaw_web.local import web


@pytest.fixture
def served(monkeypatch, tmp_path):
    """Return what the server was told, instead of serving."""
    told = {}
    monkeypatch.setattr(web.uvicorn, "run", lambda app, **options: told.update(options, app=app))
    monkeypatch.setattr(web, "configure_logs", lambda _level: None)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    chosen = replace(
        settings(),
        home=tmp_path,
        database_url="postgresql://db/x",
        redis_url="redis://r",
        trusted_proxies="10.1.2.3",
    )
    web.serve(chosen)
    return told


def test_the_server_does_not_say_what_it_is(served):
    assert served["server_header"] is False


def test_the_server_believes_no_header_about_who_calls(served):
    assert served["proxy_headers"] is False  # the app does, for pages behind a trusted proxy


def test_a_stop_gives_streams_as_long_as_the_one_budget_says(served):
    assert served["timeout_graceful_shutdown"] == stopping.LAPTOP.streams
    live = replace(settings(), environment=PRODUCTION)
    assert stopping.budget_of(live) is stopping.PRODUCTION
