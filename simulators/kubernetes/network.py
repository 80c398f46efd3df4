"""Network policies read as rules: may this pod or address reach that one?

Pods are local processes, so nothing is enforced; what a network plugin would do is worked out. As
the API says it: policies only add up, and a pod that no policy selects is open.
"""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from simulators.kubernetes import resources, selectors
from simulators.kubernetes.knobs import RefusedError
from simulators.kubernetes.objects import Object, labels_of, name_of, namespace_of, status_of
from simulators.kubernetes.store import Store

PROTOCOLS = ("TCP", "UDP", "SCTP")
HIGHEST_PORT = 65_535
INGRESS, EGRESS = "Ingress", "Egress"
_DIRECTIONS = {EGRESS: ("egress", "to"), INGRESS: ("ingress", "from")}
Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True)
class Side:
    """One end of a connection as it was asked for; a pod may be made up from labels."""

    namespace: str = ""
    pod: str = ""
    labels: Mapping[str, str] | None = None
    address: Address | None = None

    @classmethod
    def read(cls, given: Any) -> "Side":
        if not isinstance(given, dict):
            raise RefusedError(
                "from and to are objects: {namespace, pod}, {namespace, labels}, {ip}"
            )
        if "ip" in given:
            try:
                address = ipaddress.ip_address(str(given["ip"]))
            except ValueError as error:
                raise RefusedError(str(error)) from error
            # What is sent to a mapped address leaves as IPv4.
            return cls(address=getattr(address, "ipv4_mapped", None) or address)
        namespace, labels = given.get("namespace", ""), given.get("labels")
        if not namespace or not (given.get("pod") or isinstance(labels, dict)):
            raise RefusedError("a pod needs a namespace and a name, or a namespace and labels")
        return cls(namespace, given.get("pod", ""), labels)


@dataclass(frozen=True)
class Question:
    """A connection that somebody would open."""

    source: Side
    target: Side
    port: int
    protocol: str

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> "Question":
        """Read a control request.

        Raises:
            RefusedError: it is not well put.
        """
        port, protocol = body.get("port"), body.get("protocol", "TCP")
        if not isinstance(port, int) or not 1 <= port <= HIGHEST_PORT:
            raise RefusedError(f"port is a number from 1 to {HIGHEST_PORT}")
        if protocol not in PROTOCOLS:
            raise RefusedError(f"protocol is one of {', '.join(PROTOCOLS)}")
        return cls(Side.read(body.get("from")), Side.read(body.get("to")), port, protocol)


@dataclass(frozen=True)
class _End:
    """One end with what rules look at; without a namespace it is outside of the cluster."""

    namespace: str
    labels: Mapping[str, str]
    addresses: tuple[Address, ...]
    ports: Mapping[tuple[str, str], int]  # by name and protocol


def answer(store: Store, question: Question) -> dict[str, Any]:
    """Return whether it is allowed, and what each direction says to it.

    Raises:
        RefusedError: there is no such pod.
    """
    source, target = _end(store, question.source), _end(store, question.target)
    egress = _judged(store, EGRESS, question, (source, target), target)
    ingress = _judged(store, INGRESS, question, (target, source), target)
    return {
        "allowed": egress["allowed"] and ingress["allowed"],
        "egress": egress,
        "ingress": ingress,
    }


def _end(store: Store, side: Side) -> _End:
    if side.labels is not None:
        return _End(side.namespace, side.labels, (), {})
    found = _pod(store, side)
    if found is None:
        return _End("", {}, (side.address,) if side.address else (), {})
    listed = [one["ip"] for one in status_of(found).get("podIPs") or ()]
    ports = {
        (port["name"], port.get("protocol", "TCP")): port["containerPort"]
        for container in found["spec"]["containers"]
        for port in container.get("ports") or ()
        if "name" in port
    }
    addresses = tuple(ipaddress.ip_address(one) for one in listed)
    return _End(namespace_of(found), labels_of(found), addresses, ports)


def _pod(store: Store, side: Side) -> Object | None:
    if side.address is None:
        found = store.find(resources.PODS, side.namespace, side.pod)
        if found is None:
            raise RefusedError(f"there is no pod {side.namespace}/{side.pod}")
        return found
    shown = str(side.address)
    return next(
        (
            pod
            for pod in store.objects(resources.PODS)
            if any(one["ip"] == shown for one in status_of(pod).get("podIPs") or ())
        ),
        None,
    )


def _judged(
    store: Store, direction: str, question: Question, ends: tuple[_End, _End], target: _End
) -> dict[str, Any]:
    """Say what the policies of one end's namespace make of the other end."""
    own, other = ends
    field, peers = _DIRECTIONS[direction]
    policies = [
        one
        for one in store.objects(resources.NETWORK_POLICIES, own.namespace or "\0")
        if direction in one["spec"]["policyTypes"]
        and selectors.matches(one["spec"].get("podSelector"), own.labels)
    ]
    if not policies:
        return {"allowed": True, "why": f"no {direction} policy selects this end", "policies": []}
    names = sorted(name_of(one) for one in policies)
    for policy in policies:
        for index, rule in enumerate(policy["spec"].get(field) or ()):
            ports, listed = rule.get("ports"), rule.get(peers)
            is_port = not ports or any(_is_port(one, question, target) for one in ports)
            is_peer = not listed or any(_is_peer(store, policy, one, other) for one in listed)
            if is_port and is_peer:
                why = f"{field}[{index}] of {name_of(policy)}"
                return {"allowed": True, "why": why, "policies": names}
    return {"allowed": False, "why": f"no {direction} rule allows it", "policies": names}


def _is_port(given: Mapping[str, Any], question: Question, target: _End) -> bool:
    if given.get("protocol", "TCP") != question.protocol:
        return False
    port = given.get("port")
    if port is None:
        return True
    if isinstance(port, str):
        return target.ports.get((port, question.protocol)) == question.port
    return port <= question.port <= given.get("endPort", port)


def _is_peer(store: Store, policy: Object, peer: Mapping[str, Any], other: _End) -> bool:
    if "ipBlock" in peer:
        return any(_in_block(peer["ipBlock"], address) for address in other.addresses)
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        inside = store.find(resources.NAMESPACES, "", other.namespace)
        labels = labels_of(inside) if inside else {}
        if not selectors.matches(peer["namespaceSelector"], labels):
            return False
    elif other.namespace != namespace_of(policy):
        return False
    return selectors.matches(peer.get("podSelector"), other.labels)


def _in_block(block: Mapping[str, Any], address: Address) -> bool:
    excepted: Iterable[str] = block.get("except") or ()
    return _contains(block["cidr"], address) and not any(
        _contains(one, address) for one in excepted
    )


def _contains(cidr: str, address: Address) -> bool:
    network = ipaddress.ip_network(cidr, strict=False)
    return network.version == address.version and address in network
