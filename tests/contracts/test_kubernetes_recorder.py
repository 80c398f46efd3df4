"""How events are kept short: repeats are counted, many that are alike are combined."""

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.recorder import COMBINED, SIMILAR_AT_MOST, Recorder
from simulators.kubernetes.schemas import Schemas
from simulators.kubernetes.store import Store


def world(folder):
    cluster = Cluster(Store(folder / "cluster.sqlite"), Schemas(folder))
    cluster.create(resources.NAMESPACES, "", {"metadata": {"name": "default"}})
    one = cluster.create(resources.CONFIG_MAPS, "default", {"metadata": {"name": "one"}})
    return cluster, one


def test_the_same_event_again_is_counted(tmp_path):
    cluster, one = world(tmp_path)
    recorder = Recorder(cluster, "test")
    for _ in range(3):
        recorder.warning(one, "Failed", "it broke")
    (event,) = cluster.store.objects(resources.EVENTS)
    assert (event["count"], event["message"]) == (3, "it broke")
    cluster.store.close()


def test_many_events_that_differ_in_words_only_become_one(tmp_path):
    cluster, one = world(tmp_path)
    recorder = Recorder(cluster, "test")
    for number in range(SIMILAR_AT_MOST + 5):
        recorder.warning(one, "Failed", f"it broke {number}")
    events = cluster.store.objects(resources.EVENTS)
    assert len(events) == SIMILAR_AT_MOST + 1
    combined = next(each for each in events if each["message"].startswith(COMBINED))
    assert (combined["count"], combined["message"]) == (5, f"{COMBINED}it broke 14")
    cluster.store.close()
