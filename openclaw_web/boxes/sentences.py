"""What a customer reads about a box: one plain sentence for each state, never a raw key."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from openclaw_web.boxes.desired import Why
from openclaw_web.boxes.models import BoxStatus
from openclaw_web.jobs import leases


class Reason:
    """The words that `boxes.status_reason` may hold, beside the cluster's own."""

    PROVISION_FAILED = "provision_failed"
    UPDATE_ROLLED_BACK = "update_rolled_back"
    UPDATE_FAILED = "update_failed"
    NAMESPACE_DELETED = "namespace_deleted"
    NOT_READY = "not_ready"
    NO_POD = "no_pod"
    NOT_SAVED = "not_saved"
    STUCK_TERMINATING = "stuck_terminating"


MEMORY_LOST = (
    "Its memory was lost: its volume was deleted together with everything else it had in the"
    " cluster, and there was no backup."
)
# All that the gateway says is that Telegram fails: not whose fault it is.
NO_TELEGRAM = "it cannot connect to Telegram, which may be down or may have revoked its bot token"
# Kubernetes' words for what may be wrong with a pod, in ours.
TROUBLES = {
    "CrashLoopBackOff": "its process keeps ending right after its start",
    "Error": "its process ended with an error",
    "OOMKilled": "it used more memory than its plan gives it and was ended",
    "ErrImagePull": "its program cannot be downloaded",
    "ImagePullBackOff": "its program cannot be downloaded",
    "InvalidImageName": "its program cannot be downloaded",
    "CreateContainerConfigError": "a part of its configuration is missing",
    "Unschedulable": "the cluster has no room for it at the moment",
    "FailedScheduling": "the cluster has no room for it at the moment",
    "Evicted": "the machine it ran on was too full and put it out",
    "quota": "the cluster refused more resources for it",
    "namespace_terminating": "the cluster is still deleting what it had before",
    "unreachable": "the cluster does not answer",
    "timeout": "the cluster does not answer in time",
    "busy": "the cluster is too busy",
    "server_error": "the cluster has a problem",
    "not_ready": "it did not become ready in time",
    Reason.NO_POD: "the cluster runs no pod for it",
    "telegram": NO_TELEGRAM,
    Reason.NOT_SAVED: "its memory could not be saved first",
    "bad_settings": "one of its settings cannot be used",
}
# Another image may be to blame for these; the same one as before is not.
PULL_TROUBLES = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName"})
SUSPENDED = {
    Why.PAUSED: "Paused by you; resume it at any time.",
    Why.HOLD: "Suspended by us while a question about this account is open.",
    Why.NOT_PAID: "Suspended: the subscription is not paid.",
}
NOT_READY = "Not ready at this moment; it usually comes back by itself within a minute."
# What a customer reads of a box that is active, by the link of its chain that is broken.
BROKEN = {
    "pod": NOT_READY,
    "gateway": NOT_READY,
    "telegram": f"Running, but {NO_TELEGRAM}.",
    "tokens": "Running, but this period's tokens are used up; it says so politely when asked.",
}
MODEL_DOWN = (
    "Our model provider does not answer at the moment. That is on our side, not yours, and we were"
    " told: each new message asks it again, and your assistant answers as soon as it does."
)
MODEL_FAILED = (
    "Its newest question to the model got no answer. That is on our side, not yours: write again"
    " in a moment, and it asks anew."
)
MODEL_UNSURE = (
    "Its last question to the model got no answer, on our side. The next one shows whether it"
    " answers again."
)
UNSEEN = (
    "We cannot look at it at this moment, and are on it. It most likely answers as before: its"
    " machine works without us."
)
UNSEEN_LINK = "We cannot look at it at this moment."
FAILURE_COUNTS_FOR = timedelta(minutes=15)  # an older one says little of now
DEFAULT_SUSPENDED = "Suspended."
MEMORY_BACK = "Its memory came back from the backup of {at:%d %B %Y, %H:%M} UTC."
MEMORY_KEPT = "Its memory is kept."
GONE = frozenset({BoxStatus.DESTROYING, BoxStatus.DESTROYED})


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is known of a box when its sentence is written."""

    status: BoxStatus
    reason: str
    bot_username: str
    memory_lost_at: datetime | None
    has_job: bool
    progress: str
    is_out_of_tokens: bool = False
    is_model_down: bool = False  # no provider answers anybody
    model_failure_age: timedelta | None = None  # of the newest question, when it was in vain
    is_unseen: bool = False  # our eyes are shut: what was seen last may be over
    memory_from: datetime | None = None  # a restore brought it back as it was then


@dataclass(frozen=True, kw_only=True)
class Link:
    """One link of the chain between a message and its answer."""

    name: str
    is_ok: bool | None
    sentence: str


def sentence_of(situation: Situation, links: Sequence[Link] = ()) -> str:
    """Return what is the case, in words that need no explanation: the worst of its links."""
    told = _status_sentence(situation)
    broken = broken_of(situation, links)
    if broken == "model":
        told = f"Running, but {_lowered(links[-1].sentence)}"
    elif broken:
        told = BROKEN[broken]
    elif situation.status is BoxStatus.ACTIVE and situation.is_unseen:
        told = UNSEEN
    if situation.memory_from is not None and situation.status not in GONE:
        told = f"{told} {MEMORY_BACK.format(at=situation.memory_from)}"
    if situation.memory_lost_at is None or situation.status in GONE:
        return told
    is_told = (
        situation.status is BoxStatus.UNHEALTHY and situation.reason == Reason.NAMESPACE_DELETED
    )
    return told if is_told else f"{told} {MEMORY_LOST}"


def broken_of(situation: Situation, links: Sequence[Link]) -> str:
    """Return what keeps an active box from answering: the name of a link, "tokens", or ''."""
    broken = worst(links)
    if situation.status is not BoxStatus.ACTIVE or broken is None:
        return ""
    is_spent = broken.name == "model" and situation.is_out_of_tokens
    return "tokens" if is_spent else broken.name


def worst(links: Sequence[Link]) -> Link | None:
    """Return what keeps an answer from coming: the last link that is known to be broken.

    Links are in the order in which a message meets them, and a later one that says what fails
    explains why those before it wait.
    """
    by_name = {link.name: link for link in links if link.is_ok is False}
    pod, telegram = by_name.get("pod"), by_name.get("telegram")
    if pod is not None:
        return pod
    if telegram is not None and "gateway" not in by_name:
        return telegram  # the gateway runs, and says that it waits for Telegram only
    return by_name.get("gateway") or by_name.get("model")


def trouble(reason: str) -> str:
    """Return a clause for a reason, in a customer's words."""
    return TROUBLES.get(reason, "it does not answer its health check")


def failure(code: str) -> str:
    """Return a clause for why an attempt failed; what is no trouble of a customer's is ours."""
    return TROUBLES.get(code, leases.FAULT_OF_OURS)


def links_of(situation: Situation, health: dict[str, Any], model_at: datetime | None) -> list[Link]:
    """Return pod, gateway, Telegram and model, in the order in which a message meets them."""
    if situation.status in GONE or situation.status is BoxStatus.SUSPENDED:
        return [
            Link(name=name, is_ok=None, sentence="Not running.")
            for name in ("pod", "gateway", "telegram", "model")
        ]
    pod = health.get("pod") or {}
    failing: Sequence[str] = health.get("failing") or ()
    is_ready = bool(pod.get("is_ready"))
    has_pod = pod.get("phase") == "Running"
    seen = [
        _pod_link(pod, has_pod=has_pod),
        _gateway_link(is_ready=is_ready, has_pod=has_pod, failing=failing),
        _telegram_link(situation, is_ready=is_ready, failing=failing),
    ]
    if situation.is_unseen:
        seen = [Link(name=one.name, is_ok=None, sentence=UNSEEN_LINK) for one in seen]
    return [*seen, _model_link(model_at, situation)]


def _status_sentence(situation: Situation) -> str:
    writers = {
        BoxStatus.PENDING: _pending,
        BoxStatus.PROVISIONING: _starting,
        BoxStatus.ACTIVE: _active,
        BoxStatus.UPDATING: _updating,
        BoxStatus.SUSPENDED: _suspended,
        BoxStatus.UNHEALTHY: _unhealthy,
        BoxStatus.DESTROYING: _destroying,
        BoxStatus.DESTROYED: _destroyed,
    }
    return writers[situation.status](situation)


def _pending(situation: Situation) -> str:
    if situation.reason:
        return f"Waiting for the next try: {trouble(situation.reason)}."
    return "Waiting for its turn to be set up."


def _starting(situation: Situation) -> str:
    return f"Starting: {_lowered(situation.progress) or 'setting up its place in the cluster.'}"


def _active(situation: Situation) -> str:
    where = f" on Telegram as @{situation.bot_username}" if situation.bot_username else ""
    if situation.reason == Reason.UPDATE_ROLLED_BACK:
        return f"Answering{where}, with its former settings: the new ones did not work."
    return f"Answering{where}."


def _updating(situation: Situation) -> str:
    return f"Restarting: {_lowered(situation.progress) or 'taking its new settings.'}"


def _suspended(situation: Situation) -> str:
    found = [text for why, text in SUSPENDED.items() if why.value == situation.reason]
    told = found[0] if found else DEFAULT_SUSPENDED
    return told if situation.memory_lost_at else f"{told} {MEMORY_KEPT}"


def _unhealthy(situation: Situation) -> str:
    if situation.reason == Reason.NAMESPACE_DELETED:
        memory = (
            "Its memory was lost."
            if situation.memory_lost_at
            else "Its memory comes back from the newest backup."
        )
        return f"Its namespace was deleted from the cluster; we are building it again. {memory}"
    if situation.reason == Reason.PROVISION_FAILED:
        return "It could not be set up yet. We were told, and keep trying every ten minutes."
    doing = "we are repairing it." if situation.has_job else "we are watching it."
    return f"Not answering: {trouble(situation.reason)}; {doing}"


def _destroying(situation: Situation) -> str:
    if situation.reason == Reason.STUCK_TERMINATING:
        return "Being deleted; the cluster takes unusually long, and we were told."
    return "Being deleted, with everything it remembers."


def _destroyed(_situation: Situation) -> str:
    return "Deleted, with everything it remembered."


def _pod_link(pod: dict[str, Any], *, has_pod: bool) -> Link:
    restarts = pod.get("restarts") or 0
    if has_pod and not pod.get("reason"):
        again = f" It was restarted {restarts} times." if restarts > 1 else ""
        return Link(name="pod", is_ok=True, sentence=f"Its process runs.{again}")
    if not pod:
        return Link(name="pod", is_ok=False, sentence="Its process does not run.")
    why = trouble(pod["reason"]) if pod.get("reason") else "it is starting"
    return Link(name="pod", is_ok=False, sentence=f"Its process does not run: {why}.")


def _gateway_link(*, is_ready: bool, has_pod: bool, failing: Sequence[str]) -> Link:
    if is_ready:
        return Link(name="gateway", is_ok=True, sentence="It says that it is ready.")
    if has_pod and "telegram" in failing:
        return Link(name="gateway", is_ok=True, sentence="It runs, and waits for Telegram.")
    return Link(name="gateway", is_ok=False, sentence="It is not ready yet.")


def _telegram_link(situation: Situation, *, is_ready: bool, failing: Sequence[str]) -> Link:
    name = f" as @{situation.bot_username}" if situation.bot_username else ""
    if is_ready:
        return Link(name="telegram", is_ok=True, sentence=f"Connected to Telegram{name}.")
    if "telegram" in failing:
        sentence = f"{NO_TELEGRAM[:1].upper()}{NO_TELEGRAM[1:]}."
        return Link(name="telegram", is_ok=False, sentence=sentence)
    return Link(name="telegram", is_ok=False, sentence="Not connected to Telegram yet.")


def _model_link(model_at: datetime | None, situation: Situation) -> Link:
    is_ok, sentence = _model_state(model_at, situation)
    return Link(name="model", is_ok=is_ok, sentence=sentence)


def _model_state(model_at: datetime | None, situation: Situation) -> tuple[bool | None, str]:
    if situation.is_out_of_tokens:
        return False, "This period's tokens are used up."
    if situation.is_model_down:
        return False, MODEL_DOWN
    if (age := situation.model_failure_age) is not None:
        return (False, MODEL_FAILED) if age < FAILURE_COUNTS_FOR else (None, MODEL_UNSURE)
    if model_at is None:
        return None, "It has not asked its model anything yet."
    return True, "Its model answers."


def _lowered(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
