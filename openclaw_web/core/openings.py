"""What the network of boxes can be opened for: addresses that a deployment names, judged at start.

A wrong one would show only as assistants that resolve no name, or never reach their model.
"""

import ipaddress
from urllib.parse import urlsplit

HTTPS = 443
DEFAULT_PORTS = {"http": 80, "https": HTTPS}
SERVICE_MARK = ".svc"
NO_SERVICE = "names a service of the cluster; the only one that boxes are let to is the proxy's."


def name_servers(listed: str) -> tuple[str, ...]:
    """Return networks of name servers, which stand in a setting with commas or spaces between.

    Raises:
        ValueError: one of them is no network, or is the whole world.
    """
    found = [ipaddress.ip_network(one) for one in listed.replace(",", " ").split()]
    if any(one.prefixlen == 0 for one in found):
        raise ValueError("a network of all addresses would let boxes send anything out on port 53")
    return tuple(str(one) for one in found)


def name_server_problem(listed: str) -> str:
    """Return what is wrong with the name servers of a setting, or nothing."""
    try:
        name_servers(listed)
    except ValueError as error:
        return f"must list networks of name servers, such as 169.254.20.10/32: {error}."
    return ""


def address_problem(url: str) -> str:
    """Return why boxes could not reach this address of ours, or nothing."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    except (KeyError, ValueError):
        return "must be an address that begins with http:// or https://."
    if not host:
        return "names no host."
    if port == HTTPS or is_service(host) or literal(host):
        return ""
    return (
        f"leads to port {port} of {host}, which the boxes' network policy leaves closed: name a"
        " service of the cluster as http://proxy.openclaw-cloud.svc:3001/proxy/v1, with .svc, or"
        " a public name on port 443."
    )


def is_service(host: str) -> bool:
    """Say whether a name has the form of a service's of the cluster."""
    return host.endswith(SERVICE_MARK) or f"{SERVICE_MARK}." in host


def literal(host: str) -> str:
    """Return the network of one address that a host is, or nothing where it is a name."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        return ""
    return f"{address}/{address.max_prefixlen}"
