"""What the supervisor notes down in ``run/`` so that the next one finds it again: children and addresses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

import msgspec

from raydns.nodes.paths import write_atomically

from .procfs import Identity

_log = logging.getLogger(__name__)

_Record = TypeVar("_Record", bound=msgspec.Struct)


class ProcessRecord(msgspec.Struct, frozen=True):
    """A child, told apart from whoever may have its process id later."""

    pid: int
    start: int

    @property
    def who(self) -> Identity:
        """As /proc knows it."""
        return Identity(self.pid, self.start)


class IngressRecord(msgspec.Struct, frozen=True):
    """``run/ingress.json``."""

    processes: list[ProcessRecord] = []


class RayRecord(msgspec.Struct, frozen=True):
    """``run/ray.json``."""

    mark: str
    """``NAME=value`` in the environment of everything that belongs to this Ray."""
    plan: str
    """Digest of the plan that it was started by: another plan needs another Ray."""
    main: ProcessRecord | None = None


class AddressRecord(msgspec.Struct, frozen=True):
    """``run/addresses.json``: what this machine really listens on, for commands, tests and the next supervisor."""

    udp: list[tuple[str, int]] = []
    tcp: list[tuple[str, int]] = []
    """Address and port of each socket."""
    port: int = 0
    """The port that was chosen where the configuration says 0."""


def load(path: Path, kind: type[_Record]) -> _Record | None:
    """A record; ``None`` if there is none or it cannot be read (said, and then as if there were none)."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        _log.warning("record cannot be used", extra={"path": str(path), "problem": str(error)})
        return None


def save(path: Path, record: msgspec.Struct) -> None:
    """Keeps a record; a full disk is said and does not stop the node."""
    try:
        write_atomically(path, msgspec.json.encode(record))
    except OSError as error:
        _log.error("record cannot be kept", extra={"path": str(path), "problem": str(error)})
