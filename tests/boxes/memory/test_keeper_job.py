"""The keeper's pod: as closed as the box's, small enough for every plan, not taken for a box."""

import json
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import kubernetes_validate
import pytest

from openclaw_web.billing.tiers import plan_of
from openclaw_web.boxes import manifests, quantities
from openclaw_web.boxes.memory import keeper, keeper_job, lifting
from openclaw_web.boxes.memory.addresses import Ticket, Way
from openclaw_web.boxes.memory.keeper_job import KeeperSpec
from openclaw_web.local.places import PROJECT

TICKET = Ticket(backup_id=UUID(int=7), way=Way.SAVE, token="clear-token")  # noqa: S106
SPEC = KeeperSpec(
    namespace="customer-1",
    box_id="1",
    image="ghcr.io/example/openclaw-cloud:1",
    url="http://proxy.openclaw.svc:3001/memory/7",
    ticket=TICKET,
    fence=7,
    runtime_class="gvisor",
)
JOB = keeper_job.job(SPEC)
SECRET = keeper_job.secret(SPEC, job_uid="the-uid")


@pytest.mark.parametrize("version", ["1.33", "1.35"])
def test_kubernetes_knows_every_field(version):
    kubernetes_validate.validate(JOB, version, strict=True)
    kubernetes_validate.validate(SECRET, version, strict=True)


def test_the_keeper_has_no_rights_and_one_try():
    pod = JOB["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["hostUsers"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert (JOB["spec"]["backoffLimit"], pod["restartPolicy"]) == (0, "Never")


def test_a_save_cannot_write_and_a_restore_can():
    def mount(way):
        spec = replace(SPEC, ticket=replace(TICKET, way=way))
        pod = keeper_job.job(spec)["spec"]["template"]["spec"]
        return pod["containers"][0]["volumeMounts"][0]

    assert mount(Way.SAVE)["readOnly"] is True
    assert "readOnly" not in mount(Way.RESTORE)


def test_the_token_stands_in_the_secret_only_and_the_watch_sees_no_box():
    assert "clear-token" not in json.dumps(JOB)
    assert "clear-token" not in repr(SPEC)
    labels = JOB["spec"]["template"]["metadata"]["labels"]
    assert manifests.MANAGED not in labels


def test_the_secret_belongs_to_its_job_alone():
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": SPEC.name, "uid": "the-uid"}
    assert SECRET["metadata"]["ownerReferences"] == [owner]
    assert SECRET["metadata"]["name"] == SPEC.name
    (container,) = JOB["spec"]["template"]["spec"]["containers"]
    (source,) = [one["valueFrom"] for one in container["env"] if "valueFrom" in one]
    assert source["secretKeyRef"]["name"] == SPEC.name


def test_it_fits_into_what_the_smallest_plan_has():
    plan = plan_of("starter")
    assert quantities.whole(keeper_job.LIMITS["memory"]) < quantities.whole(plan.memory_limit)
    assert quantities.whole(keeper_job.REQUESTS["memory"]) < quantities.whole(plan.memory_request)


def test_each_attempt_has_a_keeper_of_its_own_name():
    assert replace(SPEC, fence=8).name != SPEC.name
    assert JOB["metadata"]["name"] == SPEC.name
    longest = replace(SPEC, fence=2**53, ticket=replace(TICKET, way=Way.RESTORE)).name
    assert len(longest) <= 63 - len("-abcde")


def test_the_image_has_the_keeper_where_its_job_looks_for_it():
    image = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    source = Path(keeper.__file__).relative_to(PROJECT)
    assert f"COPY {source} {Path(keeper_job.PROGRAM).relative_to('/app')}\n" in image


def test_a_keeper_that_may_wait_for_its_volume_has_that_much_longer():
    assert JOB["spec"]["activeDeadlineSeconds"] == keeper_job.LONGEST_SECONDS
    longer = keeper_job.job(replace(SPEC, seconds=lifting.SECONDS))
    assert longer["spec"]["activeDeadlineSeconds"] == 80 * 60
