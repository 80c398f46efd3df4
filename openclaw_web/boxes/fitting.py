"""What of an assistant's settings a smaller plan does not give, and taking that out."""

from dataclasses import dataclass, replace

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.tiers import Plan
from openclaw_web.boxes import openclaw_config, queries
from openclaw_web.boxes import service as boxes
from openclaw_web.boxes.models import DEFAULT_MODEL, Box


@dataclass(frozen=True, kw_only=True)
class Misfit:
    """What would have to go: Telegram users beyond the plan's number, and a model it lacks."""

    people: tuple[int, ...] = ()
    model: str | None = None


def misfit(box: Box, plan: Plan) -> Misfit | None:
    """Return what does not fit into a plan: the people who were added first stay."""
    people = tuple(box.telegram_user_ids[plan.telegram_users :])
    model = openclaw_config.model_id(box.model)
    lacks_model = model not in plan.models
    if not people and not lacks_model:
        return None
    return Misfit(people=people, model=model if lacks_model else None)


async def fit(session: AsyncSession, box: Box, plan: Plan, *, requested_by: str) -> Misfit | None:
    """Take out of a box's settings what its plan does not give, and return what went."""
    found = misfit(box, plan)
    revision = await queries.find_target_revision(session, box.id) if found else None
    if found is None or revision is None:
        return None
    known = boxes.settings_of(box, revision)
    kept = replace(
        known,
        telegram_user_ids=tuple(box.telegram_user_ids[: plan.telegram_users]),
        model=DEFAULT_MODEL if found.model else known.model,
    )
    await boxes.change_settings(session, box, kept, requested_by=requested_by)
    return found
