"""Addresses that are our own: an upstream among them would be asked for ever (design: loops are noticed).

Known from the configuration before anything runs, and from ``run/addresses.json`` (what the supervisor bound) after.
"""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from raydns.schemas.config.base import split_address
from raydns.schemas.config.server import ServerConfig

log = logging.getLogger(__name__)

_WILDCARDS: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared, not bound


@lru_cache(maxsize=1024)
def is_local(host: str) -> bool:
    """Whether the address is one of this machine's: the kernel binds to no other."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.bind((host, 0))
    except OSError:
        return False
    return True


class OwnAddresses:
    """What we listen on, and whether an upstream is that."""

    def __init__(self, listening: Iterable[tuple[str, int]] = (), local: Callable[[str], bool] = is_local) -> None:
        self._exact: set[tuple[str, int]] = set()
        self._wildcard_ports: set[int] = set()
        self._local = local
        for host, port in listening:
            if port == 0:  # not bound yet: nobody can name it as an upstream
                continue
            if host in _WILDCARDS:
                # A socket on :: takes IPv4 as well unless told otherwise; both count, it costs nothing.
                self._wildcard_ports.add(port)
            else:
                self._exact.add((str(ip_address(host)), port))

    def holds(self, host: str, port: int) -> bool:
        """Whether we listen at this address and port."""
        mapped = ip_address(host)
        plain = getattr(mapped, "ipv4_mapped", None) or mapped
        host = str(plain)
        if (host, port) in self._exact:
            return True
        return port in self._wildcard_ports and (plain.is_unspecified or plain.is_loopback or self._local(host))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, OwnAddresses)
            and self._exact == other._exact
            and self._wildcard_ports == other._wildcard_ports
        )

    def __hash__(self) -> int:
        return hash((frozenset(self._exact), frozenset(self._wildcard_ports)))


def from_config(server: ServerConfig) -> list[tuple[str, int]]:
    """What the configuration says that this machine listens on."""
    found: list[tuple[str, int]] = []
    for text in server.listen:
        host, port = split_address(text, server.port)
        found.append((host, port or 0))
    return found


def from_file(path: Path) -> list[tuple[str, int]]:
    """What ``run/addresses.json`` says was bound; empty where it is missing or cannot be read."""
    try:
        data = json.loads(path.read_text())
        pairs = [pair for transport in ("udp", "tcp") for pair in data.get(transport, [])]
        return [(str(ip_address(host)), int(port)) for host, port in pairs]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("bound_addresses_unreadable", extra={"path": str(path), "problem": str(error)})
        return []


def listening(server: ServerConfig, addresses_file: Path) -> OwnAddresses:
    """What this machine listens on: what its configuration says, and what was bound."""
    return OwnAddresses([*from_config(server), *from_file(addresses_file)])
