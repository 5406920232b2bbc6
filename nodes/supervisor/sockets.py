"""The DNS sockets of a machine: bound here, by the one process that may hold the privilege for port 53.

Options: UDP without SO_REUSEADDR (on Linux it would let a second process take our packets), with a large receive
buffer; TCP with SO_REUSEADDR (else connections in TIME_WAIT keep a restart away); IPv6 sockets speak IPv6 only, so
that both families can be bound side by side. What concerns reading (packet information, non-blocking) is the engine's.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from raydns.schemas.config import Config
from raydns.schemas.config.base import split_address
from raydns.schemas.errors import SocketError

from . import holders

_log = logging.getLogger(__name__)

TCP_BACKLOG: Final = 1024
_SO_RCVBUFFORCE: Final = 33  # socket(7): above rmem_max, with CAP_NET_ADMIN
_FREE_PORT_ATTEMPTS: Final = 32
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT)

Named = tuple[str, socket.socket]
"""``udp`` or ``tcp``, and the socket."""


@dataclass(frozen=True, slots=True)
class Address:
    """One address to listen on."""

    host: str
    port: int
    optional: bool = False
    """Whether a machine without it is no error: the default wildcard of IPv6."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def wanted(config: Config) -> list[Address]:
    """The addresses that a configuration names, each once."""
    default = "listen" not in config.server.model_fields_set
    found: dict[Address, None] = {}
    for text in config.server.listen:
        host, port = split_address(text, config.server.port)
        found[Address(host, port or 0, optional=default and host == "::")] = None
    return list(found)


def address_of(held: socket.socket) -> Address:
    """Where a socket is bound."""
    name = held.getsockname()
    return Address(str(ip_address(name[0].partition("%")[0])), int(name[1]))


def bind_all(
    addresses: Sequence[Address], *, receive_buffer: int, held: Iterable[Named] = (), port_hint: int = 0
) -> list[Named]:
    """UDP and TCP sockets for every address; all or none.

    Args:
        addresses: those with port 0 share one free port.
        receive_buffer: SO_RCVBUF of UDP sockets in octets.
        held: sockets that exist already; what fits is used as it is (and only that is returned).
        port_hint: tried first where a free port is wanted: the one of last time.

    Raises:
        SocketError: what is wrong with which address, and what to do.
    """
    mine = [(name, one) for name, one in held if one.family in (socket.AF_INET, socket.AF_INET6)]
    free = sorted((a for a in addresses if a.port == 0), key=lambda a: a.optional)
    if not free:
        return _bind(addresses, receive_buffer, mine)
    ports = {address_of(one).port for _, one in mine if address_of(one).host in {a.host for a in free}}
    candidates = [*sorted(ports), *([port_hint] if port_hint else [])]
    for attempt in range(_FREE_PORT_ATTEMPTS):
        port = candidates[attempt] if attempt < len(candidates) else _free_port(free[0].host)
        try:
            chosen = [Address(a.host, a.port or port, a.optional) for a in addresses]
            return _bind(chosen, receive_buffer, mine)
        except SocketError as error:
            cause = error.__cause__
            if not (isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE):
                raise
    raise SocketError(
        f"no port is free for UDP and TCP on all of {', '.join(a.host for a in free)}", hint="set server.port"
    )


def adopt_given(given: Iterable[Named], receive_buffer: int) -> list[Named]:
    """Sockets of systemd's socket activation: they stand for ``server.listen``; others (HTTP) are left out."""
    found: list[Named] = []
    for name, one in given:
        if name == "web" or one.family not in (socket.AF_INET, socket.AF_INET6):
            continue
        if one.type == socket.SOCK_DGRAM:
            _set_buffer(one, receive_buffer)
        found.append(("udp" if one.type == socket.SOCK_DGRAM else "tcp", one))
    kinds = {name for name, _ in found}
    if found and kinds != {"udp", "tcp"}:
        _log.warning("socket activation gave only one of UDP and TCP", extra={"given": sorted(kinds)})
    return found


def _bind(addresses: Sequence[Address], receive_buffer: int, held: Sequence[Named]) -> list[Named]:
    existing = {(name, address_of(one).host, address_of(one).port): one for name, one in held}
    bound: list[Named] = []
    made: list[socket.socket] = []
    try:
        for address in addresses:
            pair: list[Named] = []
            for kind in ("udp", "tcp"):
                one = existing.get((kind, address.host, address.port))
                if one is None:
                    one = _bind_one(kind, address, receive_buffer)
                    if one is None:
                        break
                    made.append(one)
                pair.append((kind, one))
            bound += pair
    except BaseException:
        for one in made:
            one.close()
        raise
    if not bound:
        raise SocketError("none of the addresses to listen on exists here", hint="set server.listen")
    return bound


def _bind_one(kind: str, address: Address, receive_buffer: int) -> socket.socket | None:
    """A bound socket; ``None`` where the address is optional and the machine has no such family."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    one: socket.socket | None = None
    try:
        one = socket.socket(family, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == "udp":
            _set_buffer(one, receive_buffer)
        else:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address.host, address.port))
        if kind == "tcp":
            one.listen(TCP_BACKLOG)
    except OSError as error:
        if one is not None:
            one.close()
        if address.optional and error.errno in _NO_IPV6:
            _log.warning("this machine has no IPv6: DNS listens on IPv4 only", extra={"problem": str(error)})
            return None
        raise explain(error, kind, address) from error
    return one


def explain(error: OSError, kind: str, address: Address) -> SocketError:
    """An error of bind(2) in the operator's words; chain it with ``from``."""
    where = f"{kind.upper()} {address}"
    match error.errno:
        case errno.EADDRINUSE:
            return _in_use(kind, address, where)
        case errno.EACCES if address.port < _unprivileged_start():
            return SocketError(
                f"port {address.port} needs a privilege that user {os.geteuid()} does not have",
                where=where,
                hint="give it CAP_NET_BIND_SERVICE (systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; else setcap "
                "cap_net_bind_service=+ep on the Python binary), run as root, or set server.port to 1053",
            )
        case errno.EADDRNOTAVAIL:
            return SocketError(
                f"this machine has no address {address.host}",
                where=where,
                hint="`ip address` shows those that it has; correct server.listen",
            )
        case errno.EAFNOSUPPORT:
            return SocketError(
                "this machine's kernel does not speak that address family",
                where=where,
                hint="remove the address from server.listen",
            )
        case errno.EMFILE | errno.ENFILE:
            return SocketError("too many open files", where=where, hint="raise LimitNOFILE or `ulimit -n`")
        case _:
            return SocketError(f"cannot listen: {error.strerror or error}", where=where)


def _in_use(kind: str, address: Address, where: str) -> SocketError:
    found = holders.find(kind, address.host, address.port)
    who = found[0] if found else None
    hint = f"end it, or set server.port or server.listen (port {address.port} is taken)"
    if who is not None and ("systemd-resolve" in who.command or who.address.startswith(("127.0.0.53:", "127.0.0.54:"))):
        hint = (
            "systemd-resolved has its stub listener there: set DNSStubListener=no in /etc/systemd/resolved.conf and "
            "restart it, or name the addresses of this machine in server.listen instead of the wildcard"
        )
    elif who is not None and "raydns" in who.command:
        hint = (
            f"another raydns has it: `raydns node stop` for its state_dir, or `kill {who.pid}`; "
            "a second cluster on this machine needs its own server.port"
        )
    message = f"port {address.port} is in use" + (f" by {who}" if who is not None else "")
    return SocketError(message, where=where, hint=hint)


def _set_buffer(one: socket.socket, size: int) -> None:
    with suppress(OSError):  # needs CAP_NET_ADMIN
        one.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        return
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    got = one.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2  # the kernel doubles it for its own use
    if got < size:
        _log.warning(
            "receive buffer smaller than configured: bursts may be dropped",
            extra={"wanted": size, "got": got, "hint": f"sysctl -w net.core.rmem_max={size}"},
        )


def _unprivileged_start() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_bytes())
    except (OSError, ValueError):
        return 1024


def _free_port(host: str) -> int:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
            return int(probe.getsockname()[1])
    except OSError as error:
        raise explain(error, "udp", Address(host, 0)) from error
