"""Which web pages may talk to us, and which addresses we send a browser to."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode, urlsplit

from openclaw_web.core.settings import Settings, settings

LONGEST_PATH = 1_000
_LOCAL_PATH = re.compile(r"/(?![/\\])[^\\\x00-\x20\x7f]*")


def is_own_origin(origin: str) -> bool:
    """Say whether an Origin header names this deployment."""
    return origin in _own_origins(settings())


def is_own_post(headers: Mapping[str, str]) -> bool:
    """Say whether a form was posted by a page of ours; a request that says nothing was not.

    Browsers send Origin with every POST; only a page without referrers sends "null", and then
    Sec-Fetch-Site, which no script can forge, has to speak for it, and the Host has to be ours.
    """
    site = headers.get("sec-fetch-site", "same-origin")
    origin = headers.get("origin", "null")
    if site != "same-origin":
        return False
    if origin != "null":
        return is_own_origin(origin)
    return "sec-fetch-site" in headers and headers.get("host", "") in _own_hosts(settings())


def local_path(address: str, *, default: str) -> str:
    """Return an address if it is a path on this site, the default for anything else."""
    is_local = len(address) <= LONGEST_PATH and _LOCAL_PATH.fullmatch(address) is not None
    return address if is_local else default


def with_query(path: str, **values: str) -> str:
    """Return a local path with these query values in place; empty ones are taken out."""
    parts = urlsplit(path)
    kept = {**dict(parse_qsl(parts.query)), **values}
    query = urlencode({name: value for name, value in kept.items() if value})
    return parts._replace(scheme="", netloc="", query=query, fragment="").geturl()


def _own_origins(chosen: Settings) -> frozenset[str]:
    public = urlsplit(chosen.public_url)
    origins = {f"{public.scheme}://{public.netloc}".lower()}
    if not chosen.is_production:
        origins |= {f"http://{name}:{chosen.port}" for name in ("localhost", "127.0.0.1")}
    return frozenset(origins)


def _own_hosts(chosen: Settings) -> frozenset[str]:
    return frozenset(urlsplit(origin).netloc for origin in _own_origins(chosen))
