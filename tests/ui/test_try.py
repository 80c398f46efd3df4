import pytest, json
from openclaw_web.onboarding.state import OnboardingView
from tests.ui.tab import *
def test_x(database, valkey_server):
    with running_app(database, valkey_server.url, {"/start": OnboardingView.load}) as client:
        with Tab(client, "/start") as tab:
            tab._send(HYDRATE, {})
            for _ in range(6):
                print(tab._receive())
