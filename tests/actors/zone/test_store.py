"""The zone store: its mark, what it keeps over a restart, and what it says when the disk is not as it should be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raydns.actors.zone import store as store_module
from raydns.actors.zone.master import parse
from raydns.actors.zone.store import MARK, StoredZone, ZoneStore
from raydns.actors.zone.zone_data import ZoneData
from raydns.schemas import names
from raydns.schemas.cluster import ZoneEntry
from raydns.schemas.errors import StateError

HEAD = "$TTL 300\n@ SOA ns hostmaster 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n"


def made(apex: str, text: str = HEAD) -> tuple[StoredZone, ZoneData]:
    """A zone to store."""
    data = parse(text, names.from_text(apex))
    return StoredZone(ZoneEntry(data.apex, 0, 1, 1, 1, None, data.records), "f.zone", "d", 1.5), data


def test_zones_come_back_after_a_restart(tmp_path: Path) -> None:
    """What ``put`` stored is there for the next process, contents included; ``delete`` forgets both."""
    store = ZoneStore(tmp_path / "1", 1)
    stored, data = made("b.")
    store.put(stored, data)
    store.put(*made("a."))
    store.close()
    store = ZoneStore(tmp_path / "1", 1)
    assert [names.to_text(zone.entry.apex) for zone in store.zones()] == ["a.", "b."]
    assert store.contents(0, names.from_text("b.")) == data
    assert store.delete(0, names.from_text("b."))
    assert not store.delete(0, names.from_text("b."))
    assert store.contents(0, names.from_text("b.")) is None
    store.close()


def test_foreign_directories_are_refused(tmp_path: Path) -> None:
    """A directory with strangers' files, another shard's, and one that is a file are refused with what to do."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("x")
    with pytest.raises(StateError, match=r"not marked as a zone store: it holds precious\.txt"):
        ZoneStore(tmp_path / "full", 1)
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["precious.txt"]
    ZoneStore(tmp_path / "one", 1).close()
    with pytest.raises(StateError, match="not ours"):
        ZoneStore(tmp_path / "one", 2)
    (tmp_path / "file").write_text("x")
    with pytest.raises(StateError, match="cannot be used"):
        ZoneStore(tmp_path / "file", 1)


def test_damage_is_said(tmp_path: Path) -> None:
    """A store whose file is damaged is a ``StateError`` with the place, never an empty store."""
    store = ZoneStore(tmp_path / "1", 1)
    store.put(*made("a."))
    store.close()
    (tmp_path / "1" / "data.mdb").write_bytes(os.urandom(16384))
    with pytest.raises(StateError, match="cannot be opened") as caught:
        ZoneStore(tmp_path / "1", 1)
    assert "backup" in caught.value.hint
    assert (tmp_path / "1" / MARK).exists()


def test_the_map_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A zone larger than the map makes it grow; at its bound it is a ``StateError`` and nothing is lost."""
    monkeypatch.setattr(store_module, "MAP_SIZE_FIRST", 1 << 16)
    store = ZoneStore(tmp_path / "1", 1)
    noise = "".join(f'n{i} TXT "{os.urandom(100).hex()}"\n' for i in range(3000))
    stored, data = made("big.", HEAD + noise)
    store.put(stored, data)
    assert store.contents(0, names.from_text("big.")) == data
    monkeypatch.setattr(store_module, "MAP_SIZE_MAX", 1)
    with pytest.raises(StateError, match="full"):
        _fill(store, HEAD + noise)
    assert store.contents(0, names.from_text("big.")) == data
    store.close()


def _fill(store: ZoneStore, text: str) -> None:
    for number in range(200):
        store.put(*made(f"b{number}.", text))
