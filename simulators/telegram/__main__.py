"""Start the Telegram simulator: `python -m simulators.telegram --port … --state … …`."""

from types import FrameType

import uvicorn

from simulators import LOOPBACK, options, parser
from simulators.telegram.app import build
from simulators.telegram.messenger import Messenger

GRACE_SECONDS = 2


class Server(uvicorn.Server):
    """A server that ends the long polls first, so that stopping takes no time."""

    def __init__(self, config: uvicorn.Config, messenger: Messenger) -> None:
        super().__init__(config)
        self._messenger = messenger

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._messenger.updates.close()
        super().handle_exit(sig, frame)


def main() -> None:
    chosen = options(parser(__doc__).parse_args())
    app, messenger = build(chosen)
    config = uvicorn.Config(
        app,
        host=LOOPBACK,
        port=chosen.port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Server(config, messenger).run()


if __name__ == "__main__":
    main()
