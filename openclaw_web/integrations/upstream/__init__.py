"""The model provider over HTTP/1.1: a keep-alive pool that passes bytes, made for the token proxy.

General clients cost several times the proxy's own work here (docs/upstreams.md has the figures), so
this one is our own: a socket, the httptools parser, and no objects for what nobody reads.
"""

from openclaw_web.integrations.upstream.answer import MAX_WHOLE_BYTES, Answer
from openclaw_web.integrations.upstream.connection import TimeOuts
from openclaw_web.integrations.upstream.errors import (
    UnsafeHeaderError,
    UpstreamError,
    too_large,
)
from openclaw_web.integrations.upstream.pool import Headers, Limits, Upstream

__all__ = [
    "MAX_WHOLE_BYTES",
    "Answer",
    "Headers",
    "Limits",
    "TimeOuts",
    "UnsafeHeaderError",
    "Upstream",
    "UpstreamError",
    "too_large",
]
