"""From what this machine knows to what its engine installs: one code path for boot and for change."""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from raydns.nodes.known import Known
from raydns.schemas.cluster import Snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import StateError

from .engine import MachineState

log = logging.getLogger(__name__)

_ROUTES: Final = Path("/proc/net/route")
_ADDRESSES6: Final = Path("/proc/net/if_inet6")
_UP: Final = 0x1  # RTF_UP of route(8)
_GATEWAY: Final = 0x2  # RTF_GATEWAY
PREFIXES_MAX: Final = 1024


def read(known: Known, *, keep_old: bool) -> tuple[Snapshot, MachineState] | None:
    """What is known now, ready to be installed; ``None`` where nothing is. Reads files: not for an event loop.

    Args:
        known: this machine's memory.
        keep_old: whether a configuration that this release cannot read is an error (a reload keeps what it has);
            otherwise safe defaults stand in (a start must serve).

    Raises:
        StateError: the configuration cannot be read, and ``keep_old``.
    """
    snapshot = known.load()
    if snapshot is None:
        return None
    try:
        config = Config.model_validate(snapshot.config)
    except ValidationError as error:
        if keep_old:
            raise StateError(
                f"the configuration of version {tuple(snapshot.version)} cannot be read: {error.errors()[0]['msg']}",
                where=".".join(str(part) for part in error.errors()[0]["loc"]),
                hint="the one before stays; `raydns config check` says more",
            ) from error
        config = known.config()
    return snapshot, machine_state(snapshot, config, known.images(), interface_prefixes())


def machine_state(
    snapshot: Snapshot, config: Config, images: Mapping[str, Path], prefixes: tuple[str, ...]
) -> MachineState:
    """A snapshot as the engine's one immutable value."""
    class_version = snapshot.section_versions.get("config", snapshot.version)
    return MachineState(
        version=snapshot.version.packed,
        class_version=class_version.packed,
        config=config,
        ring=snapshot.ring,
        zones=tuple(snapshot.zones),
        images=dict(images),
        flushes=tuple(snapshot.flushes),
        machine=config.server.name,
        interface_prefixes=prefixes,
    )


def interface_prefixes(routes: Path = _ROUTES, addresses6: Path = _ADDRESSES6) -> tuple[str, ...]:
    """The prefixes of this machine's own links: what classes mean by ``on_link``; empty where /proc is missing."""
    found: list[str] = []
    for path, parse in ((routes, _routes), (addresses6, _addresses6)):
        try:
            found += parse(path.read_text())
        except (OSError, ValueError) as error:
            log.warning("own prefixes cannot be read", extra={"path": str(path), "problem": str(error)})
    return tuple(dict.fromkeys(found))[:PREFIXES_MAX]


def _routes(text: str) -> list[str]:
    """Directly connected IPv4 prefixes; never a default route, whatever device it names (proc(5))."""
    prefixes: list[str] = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 8:
            continue
        flags, mask = int(fields[3], 16), int(fields[7], 16)
        if not flags & _UP or flags & _GATEWAY or not mask:
            continue
        network = int(fields[1], 16).to_bytes(4, "little")
        length = mask.bit_count()
        prefixes.append(str(ipaddress.ip_network((network, length), strict=False)))
    return prefixes


def _addresses6(text: str) -> list[str]:
    prefixes: list[str] = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 6:
            continue
        length = int(fields[2], 16)
        if not 0 < length < 128:  # ::1 and tunnels without a link
            continue
        prefixes.append(str(ipaddress.ip_network((bytes.fromhex(fields[0]), length), strict=False)))
    return prefixes
