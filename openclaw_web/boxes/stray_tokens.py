"""Do pods have the tokens that the proxy knows, and nobody else? No Secret is read for it.

What a pod was made with stands on its Deployment. Only where the proxy knows an old token that no
Deployment names are the notes on one Secret looked at: the next start of the pod would bring it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from openclaw_web.boxes import drift_brake, manifests, queries, repairs
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.boxes.queries import TokenStanding
from openclaw_web.core.clock import business_now
from openclaw_web.core.database import session_scope
from openclaw_web.integrations.cluster import Cluster
from openclaw_web.metering import service as metering

REQUESTER = "tokens"
ROTATE = "rotate"
SAFE_AFTER = timedelta(minutes=30)  # longer than any job takes from a new token to its pod
SETTLED = frozenset({BoxStatus.ACTIVE, BoxStatus.UNHEALTHY})
WITHOUT_POD = frozenset({BoxStatus.SUSPENDED, BoxStatus.DESTROYED})


@dataclass(frozen=True, kw_only=True)
class TokenCheck:
    """What a look at the tokens led to."""

    checked: int
    rotated: int
    revoked: int


async def check_tokens(cluster: Cluster, cluster_name: str) -> TokenCheck:
    """Rotate where a pod has a token that is unknown or revoked; revoke what no pod has.

    Raises:
        VendorError: the cluster does not answer; then nothing is concluded.
    """
    async with session_scope() as session:
        began_at = await business_now(session)
    shown = await _shown(cluster)
    async with session_scope() as session:
        boxes = await queries.any_customers_token_standings(session, cluster_name)
    wrong: dict[UUID, list[str]] = {}
    strays: list[tuple[UUID, UUID]] = []
    for box in boxes:
        token = shown.get(box.namespace)
        left = _strays(box, token, began_at)
        if _has_dead_token(box, token) or (
            left and await _starts_with_another(cluster, box, token)
        ):
            wrong[box.box_id] = [f"token {token}"]
        else:
            strays += [(box.box_id, one) for one in left]
    async with session_scope() as session:
        is_too_much = await drift_brake.is_too_much(
            session, cluster_name, len(wrong), len(boxes), code=drift_brake.ALERT_TOKENS
        )
    rotated = 0
    if not is_too_much:
        rotated = await repairs.request_repairs(
            wrong, began_at=began_at, requested_by=REQUESTER, actions=(ROTATE,)
        )
    revoked = [await _revoke(box_id, token_id, began_at) for box_id, token_id in strays]
    return TokenCheck(checked=len(boxes), rotated=rotated, revoked=sum(revoked))


async def _shown(cluster: Cluster) -> dict[str, str]:
    """Return which token the Deployment of each namespace names."""
    found: dict[str, str] = {}
    async for page in cluster.pages("Deployment", only_metadata=True):
        for document in page:
            meta = document["metadata"]
            token = (meta.get("annotations") or {}).get(manifests.TOKEN_ID)
            if meta["name"] == manifests.NAME and token:
                found[meta["namespace"]] = token
    return found


def _has_dead_token(box: TokenStanding, shown: str | None) -> bool:
    is_settled = box.status in SETTLED and not box.has_job
    return is_settled and shown is not None and shown not in box.tokens


async def _starts_with_another(cluster: Cluster, box: TokenStanding, shown: str | None) -> bool:
    """Say whether a box's Secret names another token than its pod was made with.

    A job failed for good between the two: to end that token would mute the pod's next start.
    """
    if box.status not in SETTLED:
        return False
    secret = await cluster.find_object("Secret", box.namespace, manifests.NAME)
    stored = secret.annotations.get(manifests.TOKEN_ID) if secret else None
    return stored is not None and stored != shown


def _strays(box: TokenStanding, shown: str | None, now: datetime) -> list[UUID]:
    """Return the live tokens that no pod was made with: of a job that failed for good."""
    if box.has_job or (box.status in SETTLED and shown is None):
        return []
    if box.status not in SETTLED | WITHOUT_POD:
        return []
    kept = shown if box.status in SETTLED else None
    return [
        UUID(token_id)
        for token_id, made_at in box.tokens.items()
        if token_id != kept and made_at <= now - SAFE_AFTER
    ]


async def _revoke(box_id: UUID, token_id: UUID, began_at: datetime) -> bool:
    async with session_scope() as session:
        box = await queries.get_any_box(session, box_id, lock=True)
        if not await repairs.is_unchanged(session, box, since=began_at):
            return False
        await metering.revoke_token(session, token_id)
    return True
