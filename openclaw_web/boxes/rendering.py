"""From a box's rows to what the cluster shall have: settings, tier and deployment put together."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlmodel.ext.asyncio.session import AsyncSession

from openclaw_web.billing.models import Tier
from openclaw_web.billing.tiers import Plan, plan_of
from openclaw_web.boxes import openclaw_config, queries, reloading, service
from openclaw_web.boxes.manifests import BoxSpec, Credentials
from openclaw_web.boxes.models import Box, BoxRevision, RevisionOutcome
from openclaw_web.boxes.openclaw_config import Assistant
from openclaw_web.core import openings
from openclaw_web.core.errors import ValidationError
from openclaw_web.core.settings import Settings, settings
from openclaw_web.metering import service as metering


class UnusableSettingsError(ValidationError):
    """These settings cannot be written as a configuration."""

    def __init__(self, sentence: str, generation: int) -> None:
        super().__init__(sentence)
        self.generation = generation


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """What a box shall be: its specification, and which generation of settings that is."""

    spec: BoxSpec
    generation: int
    is_proven: bool


async def render(session: AsyncSession, box: Box) -> Rendered:
    """Put the newest settings that are not known to fail into a specification.

    Raises:
        UnusableSettingsError: the settings cannot be written as a configuration.
    """
    revision, tier = await queries.get_target(session, box.id)
    return render_revision(box, revision, tier)


def render_revision(box: Box, revision: BoxRevision | None, tier: Tier) -> Rendered:
    """Put these settings into a specification; without any, those of the box's row.

    Raises:
        UnusableSettingsError: they cannot be written as a configuration.
    """
    generation = revision.generation if revision else box.generation
    chosen = revision.spec if revision else _spec_of_row(box)
    try:
        spec = render_settings(box, chosen, tier, generation)
    except ValidationError as error:
        raise UnusableSettingsError(str(error), generation) from error
    return Rendered(
        spec=spec,
        generation=generation,
        is_proven=revision is None or revision.outcome == RevisionOutcome.APPLIED.value,
    )


def render_settings(box: Box, chosen: Mapping[str, Any], tier: Tier, generation: int) -> BoxSpec:
    """Return what a box with these settings is in the cluster.

    Raises:
        ValidationError: they cannot be written as a configuration.
    """
    plan, deployment = plan_of(tier), settings()
    assistant = _assistant(chosen, plan, deployment, generation)
    return BoxSpec(
        box_id=str(box.id),
        customer_id=str(box.customer_id),
        namespace=box.k8s_namespace,
        image=image_of(box, chosen),
        cpu_request=plan.cpu_request,
        cpu_limit=plan.cpu_limit,
        memory_request=plan.memory_request,
        memory_limit=plan.memory_limit,
        storage=plan.storage,
        generation=generation,
        config=openclaw_config.render(assistant),
        user_text=openclaw_config.user_text(assistant),
        destinations=_destinations(deployment),
        storage_class=deployment.box_storage_class,
        runtime_class=deployment.box_runtime_class,
        dns_cidrs=openings.name_servers(deployment.box_dns_cidrs),
        restart=str(box.health.get(service.RESTART_MARK, "")),
        people_mark=_people_mark(chosen, plan),
    )


def image_of(box: Box, chosen: Mapping[str, Any]) -> str:
    """Return the image of a box with these settings; one that never ran takes the deployment's."""
    return chosen.get(reloading.IMAGE) or box.image or settings().box_image


def _people_mark(chosen: Mapping[str, Any], plan: Plan) -> str:
    """Return what changes when somebody is shut out, by the customer or by a smaller plan."""
    cut = max(0, len(chosen[reloading.PEOPLE]) - plan.telegram_users)
    return f"{chosen.get(reloading.REMOVED_AT, 0)}/{cut}"


async def issue_credentials(session: AsyncSession, box: Box) -> Credentials:
    """Make the credentials of a new Secret; the proxy token's clear text exists only in them."""
    issued = await metering.issue_token(session, customer_id=box.customer_id, box_id=box.id)
    return Credentials(
        proxy_token_id=str(issued.token_id),
        proxy_token=issued.clear,
        telegram_token=await service.bot_token(session, box.id),
        gateway_token=service.gateway_token(box.id),
    )


async def keep_only_token(session: AsyncSession, box_id: UUID, token_id: str) -> None:
    """End every other token of the box's pods: nothing uses them any more."""
    for known in await queries.live_token_ids(session, box_id):
        if str(known) != token_id:
            await metering.revoke_token(session, known)


def _assistant(
    chosen: Mapping[str, Any], plan: Plan, deployment: Settings, generation: int
) -> Assistant:
    """Return the assistant, cut to what the tier gives now: a downgrade keeps the first people."""
    model = openclaw_config.model_id(chosen["model"])
    return Assistant(
        telegram_user_ids=tuple(chosen["telegram_user_ids"])[: plan.telegram_users],
        language=chosen["language"],
        model=model if model in plan.models else plan.models[0],
        thinking_level=chosen["thinking_level"],
        generation=generation,
        proxy_url=deployment.box_proxy_url,
        telegram_url=deployment.telegram_api_url,
        denied_tools=tuple(deployment.box_denied_tools.replace(",", " ").split()),
        use_case=chosen.get("use_case", ""),
        style=chosen.get("style", ""),
    )


def _spec_of_row(box: Box) -> dict[str, Any]:
    return {
        "telegram_user_ids": box.telegram_user_ids,
        "language": box.language,
        "model": box.model,
        "thinking_level": box.thinking_level,
    }


def _destinations(deployment: Settings) -> tuple[str, ...]:
    telegram = deployment.telegram_api_url.rstrip("/")
    is_public = telegram == openclaw_config.PUBLIC_TELEGRAM
    return (deployment.box_proxy_url, *(() if is_public else (telegram,)))
