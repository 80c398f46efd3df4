"""Whom a box may talk to, and who may talk to it. Needs a network plugin that enforces policies."""

from typing import Any
from urllib.parse import urlsplit

from openclaw_web.boxes.openclaw_config import PORT
from openclaw_web.core import openings
from openclaw_web.core.openings import DEFAULT_PORTS, HTTPS

Rule = dict[str, Any]

DNS = 53
# The namespace of our own processes carries this label; customers cannot label namespaces.
PLATFORM = {"openclaw.cloud/platform": "true"}
COMPONENT = "app.kubernetes.io/component"
# Private, shared, link-local (cloud metadata lives there), loopback, benchmark, multicast.
CLOSED_V4 = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
)
# The same in IPv6, and the ranges that wrap IPv4 addresses: they would lead around the list above.
# Mapped ones (::ffff:0:0/96) leave as IPv4 and meet that list; the API refuses them in an `except`.
CLOSED_V6 = (
    "::1/128",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
    "ff00::/8",
)


def policy(*, destinations: tuple[str, ...], dns_cidrs: tuple[str, ...]) -> Rule:
    """Return a policy's spec: closed both ways, but for what a box needs.

    `destinations` are URLs: the token proxy, and Telegram when it is not the public one.
    `dns_cidrs` are name servers outside the cluster's own, such as a node-local cache.
    """
    return {
        "podSelector": {},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [_platform("worker")], "ports": [_port(PORT)]}],
        "egress": [
            _name_servers(dns_cidrs),
            *[rule for url in destinations if (rule := _destination(url))],
            _world(),
        ],
    }


def _name_servers(cidrs: tuple[str, ...]) -> Rule:
    cluster = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    outside = [{"ipBlock": {"cidr": cidr}} for cidr in cidrs]
    return {"to": [cluster, *outside], "ports": [_port(DNS, "UDP"), _port(DNS)]}


def _destination(url: str) -> Rule | None:
    """Return the rule that opens one address, or nothing when the world's rule covers it."""
    parts = urlsplit(url)
    port, host = parts.port or DEFAULT_PORTS[parts.scheme], parts.hostname or ""
    if block := openings.literal(host):
        return {"to": [{"ipBlock": {"cidr": block}}], "ports": [_port(port)]}
    # A service of the cluster is our proxy; any other name is a public one, on 443.
    if openings.is_service(host):
        return {"to": [_platform("proxy")], "ports": [_port(port)]}
    return None


def _world() -> Rule:
    blocks = [
        {"cidr": "0.0.0.0/0", "except": list(CLOSED_V4)},
        {"cidr": "::/0", "except": list(CLOSED_V6)},
    ]
    return {"to": [{"ipBlock": block} for block in blocks], "ports": [_port(HTTPS)]}


def _platform(component: str) -> Rule:
    return {
        "namespaceSelector": {"matchLabels": PLATFORM},
        "podSelector": {"matchLabels": {COMPONENT: component}},
    }


def _port(number: int, protocol: str = "TCP") -> Rule:
    return {"protocol": protocol, "port": number}
