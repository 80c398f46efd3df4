"""Moving the clock from a browser: the form on /dev, and a page that grows stop by stop."""

import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from html import escape

from openclaw_web.core.errors import OpenClawError
from openclaw_web.core.settings import Settings
from openclaw_web.local import clocks

logger = logging.getLogger(__name__)

BY = "dev page"
SPANS = {
    "1d": timedelta(days=1),
    "7d": timedelta(days=7),
    "35d": timedelta(days=35),
    "next": None,
}
_LABELS = {"1d": "1 day", "7d": "7 days", "35d": "35 days", "next": "To the next event"}
FORM = (
    '<form method="post" action="/dev/clock"><span>Let time pass:</span>'
    + "".join(f'<button name="by" value="{by}">{label}</button>' for by, label in _LABELS.items())
    + "</form>"
)
_HEAD = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>Time passes · OpenClaw Cloud</title>
<style>body { max-width: 60rem; margin: 0 auto; padding: 2rem 1.25rem; font: 16px/1.5 system-ui, \
sans-serif } pre { white-space: pre-wrap } a, button { font: inherit }</style></head>
<body><h1>Time passes</h1><pre>
"""
_TAIL = "</pre>{form}<p><a href='/dev/'>Back to behind the scenes</a></p></body></html>\n"


async def stops(chosen: Settings, by: str) -> AsyncIterator[str]:
    """Move the clock and yield the page, a line for each stop once it is over."""
    yield _HEAD
    count = 0
    try:
        async for hop in clocks.move(chosen, SPANS[by], by=BY):
            count += 1
            yield f"{escape(str(hop))}\n"
        yield "" if count else "Nothing is planned.\n"
        yield f"\n{escape(await clocks.told())}\n"
    except OpenClawError as error:
        yield f"\n✗ {escape(str(error))}\n"
    except Exception:  # the head is sent: this line is the page's last word
        logger.exception("Moving the clock broke.")
        yield "\n✗ Something broke; the log of the website has the traceback.\n"
    yield _TAIL.format(form=FORM)
