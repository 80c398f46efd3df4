"""Small objects for the contract tests, as plain documents."""

from typing import Any


def secret(name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"tier": "a"}}, "stringData": data}


def config_map(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}, "data": data or {"key": "value"}}
