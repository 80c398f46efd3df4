"""Serve the built pages and everything else on the web process's one port."""

import os
from pathlib import Path

import uvicorn

from openclaw_web.core.logs import configure_logs
from openclaw_web.core.settings import Settings, require
from openclaw_web.gateway import stopping, upstreams
from openclaw_web.local.frontend import reflex_environment

APP = "openclaw_web.openclaw_web:serve"
HTTP = "openclaw_web.gateway.proxy:HttpProtocol"
WEB_FOLDER = "REFLEX_WEB_WORKDIR"


def serve(chosen: Settings) -> None:
    """Serve until a signal; the pages must have been built before, here or in the image.

    uvicorn serves from this very process. Granian has a second one to watch over its worker, which
    the supervisor (or Kubernetes) does already: PSS of a blank page is 73 MB instead of 103.
    """
    configure_logs(chosen.log_level)
    require(chosen)
    upstreams.load(chosen)
    folder = Path(os.environ.get(WEB_FOLDER) or chosen.home / "web")
    os.environ.update(reflex_environment(folder))
    # Reflex's own "internal" variables (hence the underscores): serve what is built, build nothing.
    os.environ["__REFLEX_SKIP_COMPILE"] = "1"
    os.environ["__REFLEX_MOUNT_FRONTEND_COMPILED_APP"] = "1"
    uvicorn.run(
        APP,
        factory=True,
        http=HTTP,
        host=chosen.host,
        port=chosen.port,
        ws="wsproto",
        proxy_headers=False,  # the app does it, for pages alone
        server_header=False,
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=stopping.budget_of(chosen).streams,
    )
