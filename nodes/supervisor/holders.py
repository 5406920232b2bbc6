"""Who holds a port: read from /proc, so that an error can name the process instead of a number (proc(5))."""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple

from . import procfs

_LISTEN = "0A"  # TCP_LISTEN of the kernel's table; of the other states none keeps a listener away


class Holder(NamedTuple):
    """A process that has a socket on the port; ``pid`` 0 where it belongs to another user and we may not look."""

    address: str
    pid: int
    command: str

    def __str__(self) -> str:
        who = f"process {self.pid} ({self.command})" if self.pid else "a process of another user"
        return f"{who} on {self.address}"


def find(kind: str, host: str, port: int, proc: Path = Path("/proc")) -> list[Holder]:
    """The processes whose ``udp`` or ``tcp`` sockets are in the way of this address."""
    inodes = _inodes(kind, ip_address(host), port, proc)
    if not inodes:
        return []
    owners = _owners(set(inodes), proc)
    found = [Holder(address, *owners.get(inode, (0, ""))) for inode, address in inodes.items()]
    return sorted(set(found), key=lambda holder: -holder.pid)


def _inodes(kind: str, host: IPv4Address | IPv6Address, port: int, proc: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for table in (kind, f"{kind}6"):
        try:
            lines = (proc / "net" / table).read_text(encoding="ascii", errors="replace").splitlines()[1:]
        except OSError:
            continue  # a kernel without IPv6
        for line in lines:
            fields = line.split()
            if len(fields) < 10 or (kind == "tcp" and fields[3] != _LISTEN):
                continue
            address, held = _decode(fields[1])
            if held == port and _in_the_way(host, address):
                found[fields[9]] = f"[{address}]:{held}" if address.version == 6 else f"{address}:{held}"
    return found


def _decode(text: str) -> tuple[IPv4Address | IPv6Address, int]:
    """The kernel prints 32-bit words in its own byte order."""
    host, _, port = text.partition(":")
    words = [int(host[at : at + 8], 16) for at in range(0, len(host), 8)]
    packed = struct.pack(f"={len(words)}I", *words)
    family = socket.AF_INET6 if len(packed) == 16 else socket.AF_INET
    return ip_address(socket.inet_ntop(family, packed)), int(port, 16)


def _in_the_way(wanted: IPv4Address | IPv6Address, held: IPv4Address | IPv6Address) -> bool:
    if wanted.version != held.version:
        return held.version == 6 and held.is_unspecified  # an IPv6 wildcard usually takes IPv4 as well
    return wanted == held or wanted.is_unspecified or held.is_unspecified


def _owners(inodes: set[str], proc: Path) -> dict[str, tuple[int, str]]:
    targets = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[str, tuple[int, str]] = {}
    for name in os.listdir(proc):
        if not name.isdecimal():
            continue
        try:
            handles = os.listdir(proc / name / "fd")
        except OSError:
            continue  # gone, or another user's
        for handle in handles:
            try:
                inode = targets.get(os.readlink(proc / name / "fd" / handle))
            except OSError:
                continue  # closed meanwhile
            if inode is not None and inode not in found:
                found[inode] = (int(name), procfs.command_line(int(name)))
    return found
