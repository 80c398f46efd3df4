"""Kinds that are questions: may I, may they, who am I, whose token is this."""

from collections.abc import Callable
from typing import Any

from simulators.kubernetes import errors, resources
from simulators.kubernetes.access import Access, Act, Rule
from simulators.kubernetes.identity import Identities, User
from simulators.kubernetes.requests import Target

_RULE_FIELDS = ("verbs", "apiGroups", "resources", "resourceNames")


class Questions:
    """Answers them; nothing of it is kept."""

    def __init__(self, access: Access, identities: Identities) -> None:
        self._access = access
        self._identities = identities
        self._answers: dict[resources.Resource, Callable[[User, Target, Any], Any]] = {
            resources.OWN_ACCESS_REVIEWS: self._own_access,
            resources.ACCESS_REVIEWS: self._access_of,
            resources.LOCAL_ACCESS_REVIEWS: self._local_access,
            resources.OWN_RULES_REVIEWS: self._own_rules,
            resources.OWN_REVIEWS: self._self,
            resources.TOKEN_REVIEWS: self._token,
        }

    def answer(self, user: User, target: Target, body: Any) -> dict[str, Any]:
        """Return the question with its status filled in.

        Raises:
            ApiError: 400 or 422, it is not well put.
        """
        if not isinstance(body, dict):
            raise errors.bad_request("the body is not an object")
        status = self._answers[target.resource](user, target, body.get("spec") or {})
        resource = target.resource
        return {
            "kind": resource.kind,
            "apiVersion": resource.api_version,
            "metadata": {"creationTimestamp": None},
            "spec": body.get("spec") or {},
            "status": status,
        }

    def _own_access(self, user: User, target: Target, spec: dict[str, Any]) -> dict[str, Any]:
        return self._decide(user, _act(target, spec))

    def _access_of(self, _: User, target: Target, spec: dict[str, Any]) -> dict[str, Any]:
        if not spec.get("user") and not spec.get("groups"):
            hint = "at least one of user or group must be specified"
            cause = errors.wrong("spec.user", "", hint)
            raise errors.invalid(target.resource, "", [cause])
        groups = tuple(spec.get("groups") or ())
        return self._decide(User(spec.get("user", ""), groups), _act(target, spec))

    def _local_access(self, user: User, target: Target, spec: dict[str, Any]) -> dict[str, Any]:
        asked = (spec.get("resourceAttributes") or {}).get("namespace")
        if asked != target.namespace:
            hint = f"must match metadata.namespace: {target.namespace}"
            cause = errors.wrong("spec.resourceAttributes.namespace", asked or "", hint)
            raise errors.invalid(target.resource, "", [cause])
        return self._access_of(user, target, spec)

    def _decide(self, user: User, act: Act) -> dict[str, Any]:
        verdict = self._access.decide(user, act)
        status: dict[str, Any] = {"allowed": verdict.allowed}
        if verdict.reason:
            status["reason"] = verdict.reason
        if verdict.missing:
            status["evaluationError"] = ", ".join(verdict.missing)
        return status

    def _own_rules(self, user: User, _: Target, spec: dict[str, Any]) -> dict[str, Any]:
        rules = self._access.rules(user, spec.get("namespace", ""))
        resource = [_cut(rule) for rule in rules if rule.get("resources")]
        paths = [
            {"verbs": rule["verbs"], "nonResourceURLs": rule["nonResourceURLs"]}
            for rule in rules
            if rule.get("nonResourceURLs")
        ]
        return {"resourceRules": resource, "nonResourceRules": paths, "incomplete": False}

    def _self(self, user: User, _: Target, __: dict[str, Any]) -> dict[str, Any]:
        return {"userInfo": _info(user)}

    def _token(self, _: User, __: Target, spec: dict[str, Any]) -> dict[str, Any]:
        user = self._identities.of_token(spec.get("token", ""))
        if user is None:
            return {"user": {}, "error": "invalid bearer token"}
        return {"authenticated": True, "user": _info(user)}


def _cut(rule: Rule) -> dict[str, Any]:
    return {field: rule[field] for field in _RULE_FIELDS if field in rule}


def _info(user: User) -> dict[str, Any]:
    info: dict[str, Any] = {"username": user.name, "groups": list(user.groups)}
    return info | ({"uid": user.uid} if user.uid else {})


def _act(target: Target, spec: dict[str, Any]) -> Act:
    asked, plain = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if (asked is None) == (plain is None):
        hint = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        cause = errors.wrong("spec.resourceAttributes", "", hint)
        raise errors.invalid(target.resource, "", [cause])
    if asked is None:
        plain = plain or {}
        return Act(verb=plain.get("verb", ""), path=plain.get("path", "") or "/")
    part = f"/{asked['subresource']}" if asked.get("subresource") else ""
    return Act(
        verb=asked.get("verb", ""),
        group=asked.get("group", ""),
        resource=asked.get("resource", "") + part,
        namespace=asked.get("namespace", ""),
        name=asked.get("name", ""),
    )
