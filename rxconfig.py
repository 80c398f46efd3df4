"""How Reflex builds and serves the pages."""

import reflex as rx
from reflex_base.constants import StateManagerMode

from openclaw_web.core.settings import settings

chosen = settings()
# In the browser Reflex replaces `localhost` by the page's own host; other names are baked in.
here = f"http://localhost:{chosen.port}"

config = rx.Config(
    app_name="openclaw_web",
    frontend_port=chosen.port,
    backend_port=chosen.port,
    backend_host=chosen.host,
    api_url=here,
    deploy_url=chosen.public_url,
    cors_allowed_origins=sorted({here, f"http://127.0.0.1:{chosen.port}", chosen.public_url}),
    state_manager_mode=StateManagerMode.MEMORY,
    telemetry_enabled=False,
    show_built_with_reflex=False,
    plugins=[
        rx.plugins.SitemapPlugin(),
        rx.plugins.RadixThemesPlugin(
            theme=rx.theme(
                appearance="inherit",
                accent_color="iris",
                gray_color="slate",
                radius="large",
                has_background=True,
            )
        ),
    ],
)
