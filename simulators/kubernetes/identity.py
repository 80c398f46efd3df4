"""Who asks: the kubeconfig's administrator, a service account, or a user made up for a test."""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request

from simulators.kubernetes import errors, resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.objects import name_of, namespace_of, uid_of

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
SERVICE_ACCOUNTS_GROUP = "system:serviceaccounts"
ACCOUNT_PREFIX = "system:serviceaccount:"
DEFAULT_TOKEN_SECONDS = 3600
SHORTEST_TOKEN_SECONDS = 600
AUDIENCE = "https://kubernetes.default.svc"
_BEARER = "Bearer "
_HEADER = {"alg": "HS256", "typ": "JWT"}


@dataclass(frozen=True)
class User:
    """A subject as roles know it."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""

    @property
    def is_master(self) -> bool:
        return MASTERS in self.groups


ADMIN = User("kubernetes-admin", (MASTERS, AUTHENTICATED))


def account_user(namespace: str, name: str, uid: str = "") -> User:
    group = f"{SERVICE_ACCOUNTS_GROUP}:{namespace}"
    groups = (SERVICE_ACCOUNTS_GROUP, group, AUTHENTICATED)
    return User(f"{ACCOUNT_PREFIX}{namespace}:{name}", groups, uid)


class Identities:
    """Makes tokens and reads them. They are signed with a key that belongs to the state folder."""

    def __init__(self, cluster: Cluster, token: str) -> None:
        self._cluster = cluster
        self._admin = token.encode()
        self._key = hmac.digest(self._admin, b"service account tokens", hashlib.sha256)

    def of_request(self, request: Request) -> User:
        """Return who sends this request.

        Raises:
            ApiError: 401.
        """
        given = request.headers.get("authorization", "")
        user = self.of_token(given.removeprefix(_BEARER)) if given.startswith(_BEARER) else None
        if user is None:
            raise errors.unauthorized()
        return user

    def of_token(self, token: str) -> User | None:
        if hmac.compare_digest(token.encode(), self._admin):
            return ADMIN
        claims = self._claims(token)
        if claims is None or claims["exp"] < time.time():
            return None
        account = claims.get("kubernetes.io", {}).get("serviceaccount")
        if account is None:
            return User(claims["sub"], (*claims.get("groups", ()), AUTHENTICATED))
        namespace = claims["kubernetes.io"]["namespace"]
        found = self._cluster.find(resources.SERVICE_ACCOUNTS, namespace, account["name"])
        if found is None or uid_of(found) != account["uid"]:
            return None  # the account is gone, and its tokens with it
        return account_user(namespace, account["name"], account["uid"])

    def issue_for_user(self, name: str, groups: tuple[str, ...], seconds: int) -> str:
        return self._signed({"sub": name, "groups": list(groups)}, seconds)

    def issue_for_account(self, account: dict[str, Any], seconds: int) -> str:
        namespace, name = namespace_of(account), name_of(account)
        about = {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid_of(account)}}
        claims = {"sub": f"{ACCOUNT_PREFIX}{namespace}:{name}", "kubernetes.io": about}
        return self._signed(claims, seconds)

    def _signed(self, claims: dict[str, Any], seconds: int) -> str:
        now = int(time.time())
        stamps = {"iat": now, "nbf": now, "exp": now + seconds, "jti": secrets.token_hex(8)}
        whole = {"iss": AUDIENCE, "aud": [AUDIENCE], **claims, **stamps}
        body = f"{_encoded(orjson.dumps(_HEADER))}.{_encoded(orjson.dumps(whole))}"
        return f"{body}.{self._signature(body)}"

    def _claims(self, token: str) -> dict[str, Any] | None:
        body, _, signature = token.rpartition(".")
        if not body or not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return None
        return orjson.loads(_decoded(body.partition(".")[2]))

    def _signature(self, body: str) -> str:
        return _encoded(hmac.digest(self._key, body.encode(), hashlib.sha256))


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
