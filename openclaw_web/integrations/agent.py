"""The gateway of a running OpenClaw: asked only when its pod is not ready, to learn what fails."""

import httpx

TIMEOUT_SECONDS = 3.0
MOST_PARTS = 10


async def failing_parts(address: str, port: int, token: str) -> tuple[str, ...]:
    """Return the parts that keep a gateway from being ready, in its own words, such as `telegram`.

    Nothing comes back when it is ready, does not answer, or says something else: a pod's word is
    only ever a hint.
    """
    try:
        async with httpx.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
            response = await client.get(
                f"http://{address}:{port}/readyz", headers={"Authorization": f"Bearer {token}"}
            )
            found = response.json().get("failing")
    except (httpx.HTTPError, ValueError, AttributeError):
        return ()
    if not isinstance(found, list):
        return ()
    return tuple(str(part)[:40] for part in found[:MOST_PARTS])
