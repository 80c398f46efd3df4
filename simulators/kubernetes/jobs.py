"""Jobs: run pods until enough have succeeded, or too many failed, or the time is over."""

from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster, Deletion
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.knobs import Knobs
from simulators.kubernetes.objects import (
    Object,
    copied,
    is_controlled_by,
    is_finished,
    is_ready,
    is_terminating,
    is_true,
    merged_conditions,
    name_of,
    namespace_of,
    now,
    owner_reference,
    seconds_since,
    status_of,
    uid_of,
)
from simulators.kubernetes.recorder import Recorder

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 10.0, 360.0
REFUSED_RETRY_SECONDS = 5.0
_LATE = ("DeadlineExceeded", "Job was active longer than specified deadline")
_TOO_OFTEN = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
_DONE = ("CompletionsReached", "Reached expected number of succeeded pods")


class Jobs:
    """Reconciles one Job."""

    def __init__(self, cluster: Cluster, recorder: Recorder, knobs: Knobs) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._knobs = knobs

    async def reconcile(self, namespace: str, name: str) -> float | None:
        job = self._cluster.find(resources.JOBS, namespace, name)
        if job is None or is_terminating(job):
            return None
        if is_over(job):
            return self._forget(job)
        job = self._begun(job)
        pods = self._pods(job)
        active = [pod for pod in pods if not is_finished(pod) and not is_terminating(pod)]
        verdict = _verdict(job, pods)
        if verdict is not None or job["spec"]["suspend"]:
            self._delete(active)
            self._report(job, pods, verdict)
            return None
        again = self._keep_up(job, pods, active)
        self._report(job, self._pods(job), None)
        return _soonest(again, _left(job))

    def _begun(self, job: Object) -> Object:
        if status_of(job).get("startTime") or job["spec"]["suspend"]:
            return job
        status = {**status_of(job), "startTime": now()}
        return self._cluster.write_status(resources.JOBS, job, status) or job

    def _pods(self, job: Object) -> list[Object]:
        pods = self._cluster.store.objects(resources.PODS, namespace_of(job))
        return [pod for pod in pods if is_controlled_by(pod, job)]

    def _delete(self, pods: list[Object]) -> None:
        for pod in pods:
            how = Deletion(uid=uid_of(pod))
            self._cluster.delete(resources.PODS, namespace_of(pod), name_of(pod), how)

    def _keep_up(self, job: Object, pods: list[Object], active: list[Object]) -> float | None:
        """Make the pods that are missing; return seconds to wait where one failed just now."""
        succeeded, failed = _count(pods, "Succeeded"), _count(pods, "Failed")
        wanted = job["spec"]["parallelism"]
        if "completions" in job["spec"]:
            wanted = min(wanted, job["spec"]["completions"] - succeeded)
        elif succeeded:
            wanted = len(active)  # a work queue: one success means that no more are started
        missing = wanted - len(active)
        if missing < 0:
            self._delete(active[missing:])
        if missing <= 0:
            return None
        pause = self._pause(pods, failed)
        if pause > 0:
            return pause
        try:
            for _ in range(missing):
                self._create(job)
        except ApiError as refusal:
            self._recorder.warning(job, "FailedCreate", f"Error creating: {refusal}")
            return REFUSED_RETRY_SECONDS
        return None

    def _pause(self, pods: list[Object], failed: int) -> float:
        if not failed:
            return 0.0
        whole = min(FIRST_PAUSE_SECONDS * 2 ** (failed - 1), LONGEST_PAUSE_SECONDS)
        return whole * self._knobs.now.back_off_scale - min(map(_seconds_since_end, pods))

    def _create(self, job: Object) -> None:
        template = copied(job["spec"]["template"])
        metadata = {
            key: template["metadata"][key]
            for key in ("labels", "annotations", "finalizers")
            if key in template["metadata"]
        }
        metadata |= {
            "generateName": f"{name_of(job)}-",
            "ownerReferences": [owner_reference(resources.JOBS, job)],
        }
        body = {"metadata": metadata, "spec": template["spec"]}
        made = self._cluster.create(resources.PODS, namespace_of(job), body)
        self._recorder.normal(job, "SuccessfulCreate", f"Created pod: {name_of(made)}")

    def _report(self, job: Object, pods: list[Object], verdict: tuple[str, str] | None) -> None:
        active = [pod for pod in pods if not is_finished(pod) and not is_terminating(pod)]
        if verdict is not None:
            active = []
        before = status_of(job)
        counts = {
            "active": len(active),
            "ready": sum(is_ready(pod) for pod in active),
            "succeeded": _count(pods, "Succeeded"),
            "failed": _count(pods, "Failed"),
            "terminating": sum(is_terminating(pod) and not is_finished(pod) for pod in pods),
        }
        kept = {name: count for name, count in counts.items() if count or name in _ALWAYS}
        status: dict[str, Any] = {"uncountedTerminatedPods": {}, **kept}
        if "startTime" in before:
            status["startTime"] = before["startTime"]
        found = _conditions(job, verdict)
        if found:
            status["conditions"] = merged_conditions(before.get("conditions") or [], found)
        if verdict == _DONE:
            status["completionTime"] = now()
            self._recorder.normal(job, "Completed", "Job completed")
        elif verdict is not None:
            self._recorder.warning(job, *verdict)
        self._cluster.write_status(resources.JOBS, job, status)

    def _forget(self, job: Object) -> float | None:
        """Delete a job that is over when its time to live is."""
        limit = job["spec"].get("ttlSecondsAfterFinished")
        if limit is None:
            return None
        ends = [one["lastTransitionTime"] for one in status_of(job)["conditions"] if _is_end(one)]
        left = limit - seconds_since(max(ends))
        if left > 0:
            return left
        how = Deletion(uid=uid_of(job), propagation="Background")
        self._cluster.delete(resources.JOBS, namespace_of(job), name_of(job), how)
        return None


_ALWAYS = ("ready", "terminating")


def is_over(job: Object) -> bool:
    return is_true(job, "Complete") or is_true(job, "Failed")


def _is_end(condition: dict[str, Any]) -> bool:
    return condition["type"] in {"Complete", "Failed"} and condition["status"] == "True"


def _count(pods: list[Object], phase: str) -> int:
    return sum(status_of(pod).get("phase") == phase for pod in pods)


def _failures(job: Object, pods: list[Object]) -> int:
    """Count failed pods, and for OnFailure also the restarts inside those that live."""
    failed = _count(pods, "Failed")
    if job["spec"]["template"]["spec"]["restartPolicy"] != "OnFailure":
        return failed
    return failed + sum(
        one.get("restartCount", 0)
        for pod in pods
        for one in status_of(pod).get("containerStatuses") or ()
    )


def _verdict(job: Object, pods: list[Object]) -> tuple[str, str] | None:
    spec = job["spec"]
    succeeded = _count(pods, "Succeeded")
    if "completions" in spec and succeeded >= spec["completions"]:
        return _DONE
    if "completions" not in spec and succeeded and all(is_finished(pod) for pod in pods):
        return _DONE
    if _failures(job, pods) > spec["backoffLimit"]:
        return _TOO_OFTEN
    left = _left(job)
    return _LATE if left is not None and left <= 0 else None


def _left(job: Object) -> float | None:
    limit, began = job["spec"].get("activeDeadlineSeconds"), status_of(job).get("startTime")
    return None if limit is None or began is None else limit - seconds_since(began)


def _soonest(*moments: float | None) -> float | None:
    known = [one for one in moments if one is not None]
    return max(0.0, min(known)) if known else None


def _conditions(job: Object, verdict: tuple[str, str] | None) -> list[dict[str, Any]]:
    if verdict is None:
        is_suspended = job["spec"]["suspend"]
        if not is_suspended and not is_true(job, "Suspended"):
            return []
        word = "suspended" if is_suspended else "resumed"
        found = {"type": "Suspended", "status": "True" if is_suspended else "False"}
        return [{**found, "reason": f"Job{word.title()}", "message": f"Job {word}"}]
    reason, message = verdict
    kinds = ("SuccessCriteriaMet", "Complete") if verdict == _DONE else ("FailureTarget", "Failed")
    more = {"status": "True", "reason": reason, "message": message}
    return [{"type": kind, **more} for kind in kinds]


def _seconds_since_end(pod: Object) -> float:
    ends = [
        one["state"]["terminated"]["finishedAt"]
        for one in status_of(pod).get("containerStatuses") or ()
        if "terminated" in one.get("state", {})
    ]
    return seconds_since(max(ends)) if ends else float("inf")
