"""What an admin does from the overview, each act asked for with a reason and written down."""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from uuid import UUID

import reflex as rx

from openclaw_web.accounts.state import STAFF, AuthState
from openclaw_web.admin.state import AdminState
from openclaw_web.boxes.reloading import RESTART_TAKES
from openclaw_web.core.database import session_scope
from openclaw_web.core.errors import NotFoundError, OpenClawError, ValidationError
from openclaw_web.ui.showing import show
from openclaw_web.workflows import alerting, memory_acts, operations
from openclaw_web.workflows.operations import By

LONGEST_REASON = 300
ACTS: dict[str, tuple[Callable[..., Awaitable[Any]], str, str, str]] = {
    "retry": (
        operations.retry_job,
        "Try this job again?",
        "Its work is asked for once more, as a new job.",
        "It waits for its turn again.",
    ),
    "cancel": (
        operations.cancel_job,
        "Cancel this job?",
        "A waiting job ends at once, a running one at its next step. What is done stays done.",
        "It is being cancelled.",
    ),
    "release": (
        operations.force_release,
        "Take this job from its worker?",
        "For a worker that is stuck or gone: whatever it still writes is refused from then on.",
        "It was taken from its worker.",
    ),
    "check": (
        operations.check_box,
        "Look at this assistant now?",
        "The operator looks whether it answers, and writes down what it sees.",
        "The operator looks at it.",
    ),
    "converge": (
        operations.converge_box,
        "Apply everything again?",
        "What differs from what was applied is brought back. What is right stays untouched.",
        "Everything is applied again.",
    ),
    "restart": (
        operations.restart_box,
        "Restart this assistant?",
        f"It gets a new pod with the same settings and is away for {RESTART_TAKES}.",
        "It restarts.",
    ),
    "rotate": (
        operations.rotate_token,
        "Give this assistant a new token?",
        f"It restarts with it and is away for {RESTART_TAKES}; the old one ends by 15 minutes.",
        "It gets a new token.",
    ),
    "answer": (
        alerting.answer_alert,
        "Decide this for the whole cluster?",
        "No worker may do it by itself, since many assistants depend on it.",
        "The workers see it within a minute.",
    ),
    "give_up": (
        memory_acts.give_up_last_backup,
        "Delete it without a last backup?",
        "What is newer than its last backup is lost; snapshots go with it. Mend the cause first.",
        "It is deleted without a last backup.",
    ),
    "resolve": (
        alerting.resolve_alert,
        "Close this alert?",
        "What is still wrong opens it again by itself.",
        "It is closed.",
    ),
}
NOT_YOURS = "Only an admin may do this."


class AdminActs(AuthState):
    """The question that stands before an act, and the act."""

    requires: ClassVar[str] = STAFF

    is_asking: bool = False
    title: str = ""
    sentence: str = ""
    about: str = ""
    problem: str = ""

    _act: str = ""
    _target: str = ""

    @rx.event
    async def ask(self, act: str, target: str, about: str) -> None:
        """Ask for the reason of an act on a job, a box or an alert."""
        if not isinstance(act, str) or act not in ACTS:
            return
        self._act, self._target = act, str(target)
        _, title, sentence, _ = ACTS[act]
        show(
            self,
            is_asking=True,
            title=title,
            sentence=sentence,
            about=str(about)[:200],
            problem="",
        )

    @rx.event
    async def stop_asking(self, is_open: bool = False) -> None:
        if is_open is not True:
            show(self, is_asking=False)

    @rx.event
    async def confirm(self, form: dict[str, Any]) -> list[Any] | None:
        """Do it, for the reason that was typed; a refusal stays beside the question."""
        reason = form.get("reason") if isinstance(form, dict) else None
        try:
            done = await self._do(reason if isinstance(reason, str) else "")
        except OpenClawError as error:
            show(self, problem=str(error))
            return None
        show(self, is_asking=False, problem="")
        return [rx.toast(done), AdminState.load]

    async def _do(self, reason: str) -> str:
        principal = await self.principal()
        if principal is None or not principal.is_admin:
            raise ValidationError(NOT_YOURS)
        if self._act not in ACTS:
            raise ValidationError("Choose what to do.")
        try:
            target = UUID(self._target)
        except ValueError as error:
            raise NotFoundError("It is not there any more.") from error
        do, *_, done = ACTS[self._act]
        by = By(admin_id=principal.customer_id, reason=reason.replace("\x00", "")[:LONGEST_REASON])
        async with session_scope() as session:
            await do(session, target, by=by)
        return done
