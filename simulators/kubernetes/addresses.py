"""An address for each pod: on Linux one of loopback's many, elsewhere 127.0.0.1 and free ports."""

import secrets
import socket
import sys
from collections.abc import Iterable

LOOPBACK = "127.0.0.1"
HAS_MANY_LOOPBACKS = sys.platform == "linux"
PORTS = "simulator/ports"  # a pod's annotation: by its own ports, the real ones, where they differ
_TRIES = 200


class Addresses:
    """Hands out addresses that no other pod here has, and on which the pod's ports are free.

    Where loopback has but one address, or if so told, all pods share it and get free ports.
    """

    def __init__(self, *, is_shared: bool = False) -> None:
        self.is_shared = is_shared or not HAS_MANY_LOOPBACKS
        self._taken: set[str] = set()

    def take(self, ports: Iterable[int]) -> str:
        """Return a free address; random, so that two clusters on one machine do not meet.

        Raises:
            OSError: none was found.
        """
        if self.is_shared:
            return LOOPBACK
        wanted = list(ports)
        for _ in range(_TRIES):
            parts = (
                64 + secrets.randbelow(128),
                secrets.randbelow(256),
                1 + secrets.randbelow(254),
            )
            address = "127." + ".".join(str(part) for part in parts)
            if address not in self._taken and all(_is_free(address, port) for port in wanted):
                self._taken.add(address)
                return address
        raise OSError("no free loopback address for a pod")

    def give_back(self, address: str) -> None:
        self._taken.discard(address)

    def real_ports(self, ports: Iterable[int]) -> dict[int, int]:
        """Return what stands for each container port: the same where addresses are plenty."""
        if self.is_shared:
            return {port: _free_port() for port in ports}
        return {port: port for port in ports}


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]
