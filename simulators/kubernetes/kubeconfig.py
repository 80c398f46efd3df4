"""The kubeconfig with which clients find this cluster and may enter it."""

import base64
from pathlib import Path

import orjson

from simulators import write_secret

NAME = "development"


def write(path: Path, url: str, authority: bytes, token: str) -> None:
    """Write the file for its owner only. JSON is YAML, so every client reads it."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": NAME,
                "cluster": {
                    "server": url,
                    "certificate-authority-data": base64.b64encode(authority).decode(),
                },
            }
        ],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME}}],
        "current-context": NAME,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)  # the mode of a file that is there already would stay
    write_secret(path, orjson.dumps(content, option=orjson.OPT_INDENT_2).decode())
