"""Everything the Telegram simulator serves, behind the safety rules."""

from starlette.applications import Starlette
from starlette.routing import Route

from simulators import LoopbackGuard, Options
from simulators.telegram.bot_api import BotApi
from simulators.telegram.botfather import BotFather
from simulators.telegram.control import Control
from simulators.telegram.faults import Faults
from simulators.telegram.messenger import Messenger
from simulators.telegram.phone import Phone
from simulators.telegram.store import BOTFATHER_ID, Store

CONTENT_TYPES = frozenset(
    {"application/json", "application/x-www-form-urlencoded", "multipart/form-data"}
)


class BotApiGuard(LoopbackGuard):
    """The Bot API's paths share no folder: each begins with /bot and the bot's own token."""

    def _needs_token(self, path: str) -> bool:
        return not path.startswith("/bot")


def build(chosen: Options) -> tuple[LoopbackGuard, Messenger]:
    messenger = Messenger(Store(chosen.state))
    messenger.employ(BOTFATHER_ID, BotFather(messenger))
    faults = Faults()
    app = Starlette(
        routes=[
            Route(
                "/bot{token}/{method}", BotApi(messenger, faults).answer, methods=["GET", "POST"]
            ),
            *Phone(messenger).routes(),
            *Control(messenger, faults).routes(),
        ]
    )
    guarded = BotApiGuard(app, chosen, content_types=CONTENT_TYPES, vendor_paths=())
    return guarded, messenger
