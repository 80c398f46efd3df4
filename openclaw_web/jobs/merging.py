"""How two requests for one box become one job, and what of a request may be kept."""

from collections.abc import Mapping
from typing import Any

from openclaw_web.core.logs import REDACTED, redact
from openclaw_web.jobs.models import JobType

ACTIONS = "actions"
SECRET_WORDS = ("token", "secret", "password", "api_key", "authorization")


def merge_requests(
    waiting_type: JobType, waiting: dict[str, Any], new_type: JobType, new: dict[str, Any]
) -> tuple[JobType, dict[str, Any]]:
    """Return type and payload of the one job that does both.

    The newest type says why; actions are an ordered union. A destroy clears every other action
    and wins over whatever is asked after it.
    """
    if JobType.DESTROY in {waiting_type, new_type}:
        chosen = new if new_type is JobType.DESTROY else waiting
        return JobType.DESTROY, {**chosen, ACTIONS: [JobType.DESTROY.value]}
    return new_type, {**waiting, **new, ACTIONS: union(waiting, new)}


def union(*payloads: Mapping[str, Any]) -> list[str]:
    """Return every action of these payloads once, in the order of their first request."""
    return list(dict.fromkeys(action for one in payloads for action in one.get(ACTIONS, ())))


def with_action(job_type: JobType, payload: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the payload of a new job: without secrets, its own type among the actions."""
    clean = without_secrets(dict(payload or {}))
    return {**clean, ACTIONS: union(clean, {ACTIONS: [job_type.value]})}


def without_secrets(value: Any) -> Any:
    """Take secrets out of a document, by the names of its keys and by their looks."""
    if isinstance(value, dict):
        return {
            key: REDACTED
            if isinstance(one, str) and any(word in key.lower() for word in SECRET_WORDS)
            else without_secrets(one)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [without_secrets(one) for one in value]
    return redact(value) if isinstance(value, str) else value
