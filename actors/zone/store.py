"""The zone shard's store: one LMDB environment in a directory that bears its mark.

    <state_dir>/zone/<n>/raydns-zone-shard   the mark: format and shard number, text
    <state_dir>/zone/<n>/data.mdb            sub-databases ``zones`` (what is known of each) and ``contents``

Rules of this file: a directory that holds something and bears no mark, or another shard's, is refused; a commit is on
disk when ``put`` returns; nothing here decides what is published. Journal and versions get sub-databases of their own.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import lmdb
import msgspec

from raydns.nodes.paths import write_atomically
from raydns.schemas import names
from raydns.schemas.cluster import ZoneEntry
from raydns.schemas.errors import StateError

from .zone_data import ZoneData

MARK: Final = "raydns-zone-shard"
STORE_FORMAT: Final = 1
MAP_SIZE_FIRST: Final = 64 << 20
MAP_SIZE_MAX: Final = 256 << 30  # address space, not memory


class StoredZone(msgspec.Struct, frozen=True):
    """What is known of a zone beside its contents."""

    entry: ZoneEntry
    origin_file: str
    digest: str
    """SHA-256 of its contents: says whether a reload changed anything."""
    loaded_at_s: float
    """Unix time."""
    warnings: list[str] = []


class ZoneStore:
    """Zones on disk; one process at a time writes.

    Args:
        path: the shard's own directory; it is made.
        index: the shard's number.

    Raises:
        StateError: the directory is somebody else's, damaged, or cannot be written.
    """

    def __init__(self, path: Path, index: int) -> None:
        self.path = path
        _claim(path, index)
        self._map_size = MAP_SIZE_FIRST
        try:
            data = path / "data.mdb"
            if data.exists():
                self._map_size = max(self._map_size, 2 * data.stat().st_size)
            self._env = lmdb.open(str(path), map_size=self._map_size, max_dbs=8, mode=0o600)
            self._zones = self._env.open_db(b"zones")
            self._contents = self._env.open_db(b"contents")
        except (lmdb.Error, OSError) as error:
            raise StateError(
                f"the zone store cannot be opened: {error}",
                where=str(path),
                hint="restore it from a backup, or move it away and load the zones again",
            ) from error

    def zones(self) -> list[StoredZone]:
        """All zones, in order of view and apex; a damaged entry is a ``StateError``."""
        return [self._decode(value, StoredZone, "zone") for _, value in self._items(self._zones)]

    def contents(self, view: int, apex: bytes) -> ZoneData | None:
        """A zone's contents, if they are here."""
        with self._read() as transaction:
            value = transaction.get(_key(view, apex), db=self._contents)
        if value is None:
            return None
        try:
            plain = zlib.decompress(value)
        except zlib.error as error:
            raise self._damaged("contents", error) from error
        data: ZoneData = self._decode(plain, ZoneData, "contents")
        return data

    def put(self, zone: StoredZone, data: ZoneData) -> None:
        """Keeps a zone and its contents in one commit; on return both are on disk."""
        key = _key(zone.entry.view, zone.entry.apex)
        head = msgspec.msgpack.encode(zone)
        body = zlib.compress(msgspec.msgpack.encode(data), 1)

        def write(transaction: Any) -> None:
            transaction.put(key, head, db=self._zones)
            transaction.put(key, body, db=self._contents)

        self._write(write, names.to_text(zone.entry.apex))

    def delete(self, view: int, apex: bytes) -> bool:
        """Forgets a zone; whether it was there."""
        key = _key(view, apex)
        found = False

        def write(transaction: Any) -> None:
            nonlocal found
            found = bool(transaction.delete(key, db=self._zones))
            transaction.delete(key, db=self._contents)

        self._write(write, names.to_text(apex))
        return found

    def close(self) -> None:
        """Closes the environment."""
        self._env.close()

    def _read(self) -> Any:
        return self._env.begin()

    def _items(self, database: Any) -> Iterator[tuple[bytes, bytes]]:
        with self._read() as transaction:
            yield from transaction.cursor(db=database)

    def _write(self, change: Callable[[Any], None], where: str) -> None:
        while True:
            try:
                with self._env.begin(write=True) as transaction:
                    change(transaction)
            except lmdb.MapFullError as error:
                if self._map_size >= MAP_SIZE_MAX:
                    raise StateError(f"the zone store is full at {self._map_size} octets", where=where) from error
                self._map_size *= 2
                self._env.set_mapsize(self._map_size)
            except (lmdb.Error, OSError) as error:
                raise StateError(
                    f"the zone cannot be stored: {error}", where=f"{self.path}, {where}", hint="is the disk full?"
                ) from error
            else:
                return

    def _decode(self, value: bytes, kind: type[Any], what: str) -> Any:
        try:
            return msgspec.msgpack.decode(value, type=kind)
        except msgspec.MsgspecError as error:
            raise self._damaged(what, error) from error

    def _damaged(self, what: str, error: Exception) -> StateError:
        return StateError(f"an entry of the zone store ({what}) is damaged: {error}", where=str(self.path))


def _key(view: int, apex: bytes) -> bytes:
    return view.to_bytes(4, "big") + apex


def _may_come_first(name: str) -> bool:
    # A fresh mount, and a mark whose writing was cut off.
    return name == "lost+found" or name.startswith(f".{MARK}.")


def _claim(path: Path, index: int) -> None:
    text = f"format {STORE_FORMAT}\nshard {index}\n"
    mark = path / MARK
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if mark.exists():
            found = mark.read_text("utf-8", "replace")
            if found != text:
                raise StateError(
                    f"this zone store is not ours: its mark says {found.split()!r}, expected {text.split()!r}",
                    where=str(mark),
                    hint="it belongs to another shard or release; never share one directory",
                )
            return
        strangers = sorted(entry.name for entry in path.iterdir() if not _may_come_first(entry.name))
        if strangers:
            raise StateError(
                f"the directory is not empty and not marked as a zone store: it holds {', '.join(strangers[:3])}",
                where=str(path),
                hint=f"empty it, or point state_dir elsewhere; a store of ours holds a file {MARK}",
            )
        write_atomically(mark, text.encode())
    except OSError as error:
        raise StateError(
            f"the zone store's directory cannot be used: {error.strerror or error}", where=str(path)
        ) from error
