"""Role-based access: who may do what, by the roles and bindings that are there."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from simulators.kubernetes import resources
from simulators.kubernetes.cluster import Cluster
from simulators.kubernetes.errors import ApiError
from simulators.kubernetes.identity import ACCOUNT_PREFIX, AUTHENTICATED, User, account_user
from simulators.kubernetes.objects import Object, name_of, namespace_of

ANY = "*"
RBAC_GROUP = resources.ROLES.group
_GO_WORDS = {
    "apiGroups": "APIGroups",
    "resources": "Resources",
    "resourceNames": "ResourceNames",
    "nonResourceURLs": "NonResourceURLs",
    "verbs": "Verbs",
}
Rule = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Act:
    """What somebody wants to do: to a resource (with its subresource), or at a plain path."""

    verb: str
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


@dataclass(frozen=True)
class Verdict:
    """Whether it is allowed, and by what; `missing` names roles that bindings ask for in vain."""

    allowed: bool
    reason: str = ""
    missing: tuple[str, ...] = ()


class Access:
    """Decides from the cluster's own roles and bindings."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def decide(self, user: User, act: Act) -> Verdict:
        if user.is_master:
            return Verdict(allowed=True)
        missing: list[str] = []
        for binding, subject in self._bindings(user, act.namespace):
            role = self._role(binding, namespace_of(binding))
            if role is None:
                missing.append(_missing(binding))
                continue
            if any(permits(rule, act) for rule in role.get("rules") or ()):
                return Verdict(allowed=True, reason=_because(binding, subject))
        return Verdict(allowed=False, missing=tuple(missing))

    def check(self, user: User, act: Act) -> None:
        """Refuse what is not allowed.

        Raises:
            ApiError: 403 with the sentence of the real server.
        """
        verdict = self.decide(user, act)
        if not verdict.allowed:
            raise _forbidden(user, act, verdict)

    def impersonated(self, user: User, headers: Mapping[str, str]) -> User:
        """Return whom the request acts as: `kubectl --as` names somebody else.

        Raises:
            ApiError: 403, the user may not.
        """
        name = headers.get("impersonate-user", "")
        if not name:
            return user
        asked = headers.get("impersonate-group", "")  # of several, the last: enough for kubectl
        groups = (asked,) if asked else ()
        act = Act(verb="impersonate", resource="users", name=name)
        self.check(user, act)
        for group in groups:
            self.check(user, Act(verb="impersonate", resource="groups", name=group))
        if name.startswith(ACCOUNT_PREFIX) and not groups:
            namespace, _, account = name.removeprefix(ACCOUNT_PREFIX).partition(":")
            return account_user(namespace, account)
        return User(name, (*groups, AUTHENTICATED))

    def rules(self, user: User, namespace: str) -> list[Rule]:
        """Return everything a user may do in a namespace."""
        if user.is_master:
            every = {"verbs": [ANY]}
            resource = {**every, "apiGroups": [ANY], "resources": [ANY]}
            return [resource, {**every, "nonResourceURLs": [ANY]}]
        roles = [
            self._role(binding, namespace_of(binding))
            for binding, _ in self._bindings(user, namespace)
        ]
        return [rule for role in roles if role for rule in role.get("rules") or ()]

    def check_grant(
        self, user: User, resource: resources.Resource, namespace: str, one: Object
    ) -> None:
        """Let nobody give away more than they hold, by a role or by a binding to one.

        Raises:
            ApiError: 403.
        """
        if resource in (resources.ROLES, resources.CLUSTER_ROLES):
            right, wanted = "escalate", one.get("rules") or ()
        elif resource in (resources.ROLE_BINDINGS, resources.CLUSTER_ROLE_BINDINGS):
            right, wanted = "bind", (self._role(one, namespace) or {}).get("rules") or ()
        else:
            return
        name = one["metadata"].get("name", "")
        target = Act(
            verb=right,
            group=RBAC_GROUP,
            resource=_role_plural(resource, one),
            namespace=namespace,
            name=one["roleRef"]["name"] if right == "bind" else name,
        )
        if self.decide(user, target).allowed:
            return
        held = self.rules(user, namespace)
        lacking = [rule for rule in wanted if not covers(held, rule)]
        if lacking:
            shown = "\n".join(_shown(rule) for rule in lacking)
            groups = " ".join(f'"{group}"' for group in user.groups)
            message = (
                f'{resource.qualified} "{name}" is forbidden: user "{user.name}"'
                f" (groups=[{groups}]) is attempting to grant RBAC permissions not currently"
                f" held:\n{shown}"
            )
            raise ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message)

    def _bindings(self, user: User, namespace: str) -> Iterator[tuple[Object, Rule]]:
        store = self._cluster.store
        every: list[Object] = store.objects(resources.CLUSTER_ROLE_BINDINGS)
        if namespace:
            every = [*every, *store.objects(resources.ROLE_BINDINGS, namespace)]
        for binding in every:
            for subject in binding.get("subjects") or ():
                if _is(user, subject, namespace_of(binding)):
                    yield binding, subject
                    break

    def _role(self, binding: Object, namespace: str) -> Object | None:
        reference = binding["roleRef"]
        if reference["kind"] == "ClusterRole":
            return self._cluster.find(resources.CLUSTER_ROLES, "", reference["name"])
        return self._cluster.find(resources.ROLES, namespace, reference["name"])


def _is(user: User, subject: Rule, namespace: str) -> bool:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "User":
        return user.name == name
    if kind == "Group":
        return name in user.groups
    whole = f"{ACCOUNT_PREFIX}{subject.get('namespace') or namespace}:{name}"
    return kind == "ServiceAccount" and user.name == whole


def permits(rule: Rule, act: Act) -> bool:
    verbs = rule.get("verbs") or ()
    if ANY not in verbs and act.verb not in verbs:
        return False
    if act.path:
        return any(_path_fits(one, act.path) for one in rule.get("nonResourceURLs") or ())
    groups, names = rule.get("apiGroups") or (), rule.get("resourceNames") or ()
    is_group = ANY in groups or act.group in groups
    is_named = not names or act.name in names
    return is_group and is_named and _resource_fits(rule.get("resources") or (), act.resource)


def _resource_fits(offered: Iterable[str], wanted: str) -> bool:
    part = wanted.partition("/")[2]
    return any(one in {ANY, wanted} or (part and one == f"*/{part}") for one in offered)


def _path_fits(pattern: str, path: str) -> bool:
    return pattern in {ANY, path} or (pattern.endswith("*") and path.startswith(pattern[:-1]))


def covers(held: Iterable[Rule], wanted: Rule) -> bool:
    """Say whether rules allow all that another rule does, piece by piece."""
    rules = list(held)
    return all(any(permits(rule, act) for rule in rules) for act in _pieces(wanted))


def _pieces(rule: Rule) -> Iterator[Act]:
    for verb in rule.get("verbs") or ():
        for path in rule.get("nonResourceURLs") or ():
            yield Act(verb=verb, path=path)
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                for name in rule.get("resourceNames") or ("",):
                    yield Act(verb=verb, group=group, resource=resource, name=name)


def _forbidden(user: User, act: Act, verdict: Verdict) -> ApiError:
    note = ""
    if verdict.missing:
        note = f": RBAC: {verdict.missing[0]}"
        if len(verdict.missing) > 1:
            note = f": RBAC: [{', '.join(verdict.missing)}]"
    if act.path:
        message = f'forbidden: User "{user.name}" cannot {act.verb} path "{act.path}"{note}'
        return ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message)
    plural = act.resource.partition("/")[0]
    whole = f"{plural}.{act.group}" if act.group else plural
    named = f' "{act.name}"' if act.name else ""
    place = f'in the namespace "{act.namespace}"' if act.namespace else "at the cluster scope"
    message = (
        f'{whole}{named} is forbidden: User "{user.name}" cannot {act.verb} resource'
        f' "{act.resource}" in API group "{act.group}" {place}{note}'
    )
    known = {"name": act.name, "group": act.group, "kind": plural}
    details = {key: value for key, value in known.items() if value}
    return ApiError(HTTPStatus.FORBIDDEN, "Forbidden", message, details)


def _missing(binding: Object) -> str:
    kind = binding["roleRef"]["kind"].lower()
    return f'{kind}.{RBAC_GROUP} "{binding["roleRef"]["name"]}" not found'


def _because(binding: Object, subject: Rule) -> str:
    place = f"/{namespace_of(binding)}" if namespace_of(binding) else ""
    name = f'"{name_of(binding)}{place}"'
    reference = binding["roleRef"]
    who = f'{subject["kind"]} "{subject["name"]}"'
    if subject["kind"] == "ServiceAccount":
        who = f'ServiceAccount "{subject["name"]}/{subject.get("namespace", "")}"'
    return (
        f'RBAC: allowed by {binding["kind"]} {name} of {reference["kind"]} "{reference["name"]}"'
        f" to {who}"
    )


def _role_plural(resource: resources.Resource, one: Object) -> str:
    kind = one["roleRef"]["kind"] if "roleRef" in one else resource.kind
    return "clusterroles" if kind == "ClusterRole" else "roles"


def _shown(rule: Rule) -> str:
    """Write a rule as the real server does in its refusal."""
    parts = []
    for field, word in _GO_WORDS.items():
        if values := rule.get(field):
            listed = ", ".join(f'"{value}"' for value in values)
            parts.append(f"{word}:[{listed}]")
    return "{" + ", ".join(parts) + "}"
