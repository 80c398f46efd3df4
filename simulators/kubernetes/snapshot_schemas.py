"""The schemas of CSI's snapshots, which come with their controller and not with Kubernetes."""

from typing import Any

Schema = dict[str, Any]
GROUP = "snapshot.storage.k8s.io"
PACKAGE = "io.k8s.api.snapshot.v1"
_META = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"}
_QUANTITY = {"$ref": "#/$defs/io.k8s.apimachinery.pkg.api.resource.Quantity"}
_TEXT: Schema = {"type": ["string", "null"]}
_FLAG: Schema = {"type": ["boolean", "null"]}
_NUMBER: Schema = {"type": ["integer", "null"], "format": "int64"}
_TIME: Schema = {"type": ["string", "null"], "format": "date-time"}
_TEXTS: Schema = {"type": ["object", "null"], "additionalProperties": _TEXT}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    made: Schema = {"type": ["object", "null"], "properties": properties}
    return {**made, "required": list(required)} if required else made


def _kind(kind: str, required: tuple[str, ...], **properties: Schema) -> Schema:
    made = _object(required, apiVersion=_TEXT, kind=_TEXT, metadata=_META, **properties)
    named = {"group": GROUP, "kind": kind, "version": "v1"}
    return {**made, "x-kubernetes-group-version-kind": [named]}


_ERROR = _object(message=_TEXT, time=_TIME)
_REFERENCE = _object(apiVersion=_TEXT, kind=_TEXT, namespace=_TEXT, name=_TEXT, uid=_TEXT)
DEFINITIONS: dict[str, Schema] = {
    f"{PACKAGE}.VolumeSnapshotClass": _kind(
        "VolumeSnapshotClass",
        ("driver", "deletionPolicy"),
        driver=_TEXT,
        deletionPolicy=_TEXT,
        parameters=_TEXTS,
    ),
    f"{PACKAGE}.VolumeSnapshot": _kind(
        "VolumeSnapshot",
        ("spec",),
        spec=_object(
            ("source",),
            source=_object(persistentVolumeClaimName=_TEXT, volumeSnapshotContentName=_TEXT),
            volumeSnapshotClassName=_TEXT,
        ),
        status=_object(
            boundVolumeSnapshotContentName=_TEXT,
            creationTime=_TIME,
            readyToUse=_FLAG,
            restoreSize=_QUANTITY,
            error=_ERROR,
        ),
    ),
    f"{PACKAGE}.VolumeSnapshotContent": _kind(
        "VolumeSnapshotContent",
        ("spec",),
        spec=_object(
            ("deletionPolicy", "driver", "source", "volumeSnapshotRef"),
            deletionPolicy=_TEXT,
            driver=_TEXT,
            source=_object(volumeHandle=_TEXT, snapshotHandle=_TEXT),
            sourceVolumeMode=_TEXT,
            volumeSnapshotClassName=_TEXT,
            volumeSnapshotRef=_REFERENCE,
        ),
        status=_object(
            creationTime=_NUMBER,
            readyToUse=_FLAG,
            restoreSize=_NUMBER,
            snapshotHandle=_TEXT,
            error=_ERROR,
        ),
    ),
}
