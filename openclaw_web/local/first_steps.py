"""What stands between running servers and the product: tables, admin, catalogue, webhook."""

import asyncio
import logging
from pathlib import Path

from openclaw_web.accounts import service as accounts
from openclaw_web.billing import service as billing
from openclaw_web.core import migrations
from openclaw_web.core.database import close_database, open_database, session_scope
from openclaw_web.core.settings import read_stack_file, settings
from openclaw_web.integrations import payment_client, payments
from openclaw_web.local import keys
from openclaw_web.local.places import Places, write_secret

logger = logging.getLogger(__name__)

ADMIN_EMAIL = "admin@example.com"
WEBHOOK_SECRET = "stripe-webhook"  # noqa: S105 - a file's name
WEBHOOK_PATH = "/webhooks/stripe"


def take(places: Places, *, is_own_database: bool, is_own_stripe: bool) -> None:
    """Bring a stack to where the product can start; a second call changes nothing."""
    chosen = settings()
    if is_own_database:
        migrations.ensure_database(chosen.database_url)
    migrations.migrate(chosen.database_url)
    asyncio.run(_fill(places, chosen.port, is_own_stripe=is_own_stripe))


async def _fill(places: Places, port: int, *, is_own_stripe: bool) -> None:
    open_database(settings().database_url)
    try:
        await _ensure_admin(places)
        await billing.publish_catalogue()
        if is_own_stripe:
            await _ensure_webhook(places, f"http://127.0.0.1:{port}{WEBHOOK_PATH}")
    finally:
        await payment_client.close_payments()
        await close_database()


async def _ensure_admin(places: Places) -> None:
    async with session_scope() as session:
        if await accounts.find_customer_by_email(session, ADMIN_EMAIL) is not None:
            return
        password = keys.password()
        await accounts.create_admin(session, ADMIN_EMAIL, password)
    write_secret(places.admin_file, f"{ADMIN_EMAIL}\n{password}\n")


async def _ensure_webhook(places: Places, url: str) -> None:
    """Register with Stripe once for an address: a new endpoint loses what the old has to send."""
    path = places.secret(WEBHOOK_SECRET)
    known_url, _, secret = _read(path).partition(" ")
    if known_url != url:
        secret = await payments.ensure_webhook_endpoint(url)
        write_secret(path, f"{url} {secret}")
    stored = read_stack_file(places.home) | {"STRIPE_WEBHOOK_SECRET": secret}
    write_secret(places.stack_file, "".join(f"{name}={value}\n" for name, value in stored.items()))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
