"""Ports of this machine: which are free, and who holds one that is not."""

import socket
from collections.abc import Collection, Iterable

LOOPBACK = "127.0.0.1"


def is_free(port: int) -> bool:
    """Say whether we could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return not answers(port)


def answers(port: int, *, timeout_seconds: float = 0.2) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout_seconds).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]


def choose_ports(
    names: Iterable[str], *, kept: dict[str, int], never: Collection[int] = ()
) -> dict[str, int]:
    """Return a port for each name: the one it had while that is free, else a new one."""
    chosen: dict[str, int] = {}
    for name in names:
        port = kept.get(name, 0)
        while not port or port in never or port in chosen.values() or not is_free(port):
            port = free_port()
        chosen[name] = port
    return chosen


def busy_sentence(port: int) -> str:
    """Say in one sentence that a port is taken, by whom if we may know it, and what to do."""
    other = port + 1
    while not is_free(other):
        other += 1
    holder = _holder(port)
    return f"Port {port} is taken{holder}; end that, or choose another one: PORT={other} make run"


def _holder(port: int) -> str:
    import psutil  # noqa: PLC0415 - only wanted when something is wrong; the supervisor stays small

    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS tells root only
        return ""
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid:
            try:
                name = psutil.Process(one.pid).name()
            except psutil.Error:
                return ""
            return f" by {name} (process {one.pid})"
    return ""
