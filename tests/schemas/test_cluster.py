"""Cluster state: versions, the ring table, flushes against a naive model, snapshots and deltas."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.schemas import names
from raydns.schemas.cluster import (
    SECTIONS,
    Delta,
    Endpoint,
    Flush,
    FlushTable,
    ImageRef,
    Machine,
    RingTable,
    Scale,
    Snapshot,
    Version,
    ZoneEntry,
)
from raydns.schemas.errors import StateError

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")

VERSIONS = st.builds(Version, st.integers(0, (1 << 24) - 1), st.integers(0, (1 << 40) - 1))
HASHES = st.integers(0, (1 << 64) - 1)
NAMES = st.lists(st.sampled_from([b"a", b"b", b"\x01b", b"com"]), max_size=4).map(names.from_labels)


@given(VERSIONS, VERSIONS)
def test_packed_versions_order_as_pairs(one: Version, two: Version) -> None:
    """The packed u64 orders as (term, number) does, and gives the version back."""
    assert (one < two) == (one.packed < two.packed)
    assert (one == two) == (one.packed == two.packed)
    assert Version.unpack(one.packed) == one
    assert 0 <= one.packed < 1 << 64
    assert one.next() > one
    assert Version(one.term + 1, 0) > one.next()


@given(st.lists(HASHES, unique=True, max_size=30).map(sorted), HASHES)
def test_owners_against_a_walk(bounds: list[int], name_hash: int) -> None:
    """The look-up finds the first bound at or above the hash, and wraps to entry 0 above the last."""
    first = list(range(len(bounds)))
    second = [index + 100 for index in first]
    table = RingTable(1, 0, bounds, first, second)
    expected = (-1, -1)
    for index, bound in enumerate(bounds):
        if name_hash <= bound:
            expected = (first[index], second[index])
            break
    else:
        if bounds:
            expected = (first[0], second[0])
    assert table.owners(name_hash) == expected
    for index, bound in enumerate(bounds):
        assert table.owners(bound) == (first[index], second[index])


def test_owners_of_empty_and_single_rings() -> None:
    """An empty ring owns nothing; a ring of one entry owns everything."""
    assert RingTable(1, 0).owners(0) == RingTable(1, 0).owners((1 << 64) - 1) == (-1, -1)
    table = RingTable(1, 0, [1 << 40], [7], [-1])
    assert {table.owners(h) for h in (0, 1 << 40, (1 << 40) + 1, (1 << 64) - 1)} == {(7, -1)}


FLUSHES = st.lists(st.builds(Flush, NAMES, st.booleans(), st.builds(Version, st.integers(0, 2), st.integers(0, 5))))


@given(FLUSHES, NAMES, st.builds(Version, st.integers(0, 2), st.integers(0, 6)))
def test_flush_table_against_a_naive_model(flushes: list[Flush], name: bytes, began: Version) -> None:
    """An entry is gone exactly if some flush covers its name and is newer than the beginning of its flight."""
    expected = any(
        flush.version > began and (flush.name == name or (flush.subtree and names.is_subdomain(name, flush.name)))
        for flush in flushes
    )
    assert FlushTable(flushes).covers(name, began.packed) is expected


def test_flush_of_everything() -> None:
    """A flush of the root's subtree covers every name, one of the root alone covers only the root."""
    name = names.from_text("www.example.")
    assert FlushTable([Flush(names.ROOT, True, Version(1, 2))]).covers(name, Version(1, 1).packed)
    assert not FlushTable([Flush(names.ROOT, True, Version(1, 2))]).covers(name, Version(1, 2).packed)
    assert not FlushTable([Flush(names.ROOT, False, Version(1, 2))]).covers(name, Version(1, 1).packed)
    assert not FlushTable([]).covers(name, 0)


def snapshot(number: int, changed: dict[str, Any], versions: dict[str, Version]) -> Snapshot:
    """A snapshot whose sections can be told apart by ``number``."""
    fields: dict[str, Any] = {
        "config": {"version": 1},
        "machines": [Machine("m", "n0", "127.0.0.1", head=True)],
        "endpoints": [Endpoint("cache", 0, 1, "n0", "m", "/s/cache-0.sock", "127.0.0.1", 4000)],
        "ring": RingTable(1, 5, [9], [0], [-1]),
        "zones": [ZoneEntry(b"\x07example\x00", 0, 0, 1, 1, ImageRef("ab" * 32, 10))],
        "flushes": [Flush(b"\x00", True, Version(1, 1))],
        "scale": Scale(1, 1, 1, 0),
    }
    return Snapshot(Version(1, number), **(fields | changed), section_versions=versions)


CHANGES: dict[str, list[Any]] = {
    "config": [{"version": 1, "query": {"pool": n}} for n in range(3)],
    "machines": [[Machine(f"m{n}", "n", "::1")] for n in range(3)],
    "endpoints": [[Endpoint("query", n, 1, "n", "m", "/s")] for n in range(3)],
    "ring": [RingTable(n, 5, [n], [0], [-1]) for n in range(3)],
    "zones": [[ZoneEntry(b"\x00", 0, n, 1, 1, None, problem="x")] for n in range(3)],
    "flushes": [[Flush(b"\x01a\x00", False, Version(2, n))] for n in range(3)],
    "scale": [Scale(n, 1, 1, 0) for n in range(3)],
}


@given(st.lists(st.tuples(st.sampled_from(SECTIONS), st.integers(0, 2)), max_size=12), st.integers(0, 12))
def test_deltas_lead_to_the_same_snapshot(changes: list[tuple[str, int]], from_step: int) -> None:
    """From any earlier snapshot one delta, over the wire, gives exactly the newest; it holds only what changed."""
    versions: dict[str, Version] = {section: Version(1, 0) for section in SECTIONS}
    history = [snapshot(0, {}, dict(versions))]
    state: dict[str, Any] = {}
    for number, (section, choice) in enumerate(changes, start=1):
        state[section] = CHANGES[section][choice]
        versions[section] = Version(1, number)
        history.append(snapshot(number, dict(state), dict(versions)))
    old, newest = history[min(from_step, len(history) - 1)], history[-1]
    delta = newest.newer_than(old.section_versions)
    delta = msgspec.msgpack.decode(msgspec.msgpack.encode(delta), type=Delta)
    assert set(delta.sections) == {section for section, _ in changes[min(from_step, len(history) - 1) :]}
    assert old.merge(delta) == newest
    whole = msgspec.msgpack.decode(msgspec.msgpack.encode(newest.newer_than({})), type=Delta)
    assert whole.snapshot() == newest
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(newest), type=Snapshot) == newest


def test_incomplete_damaged_and_newer_deltas() -> None:
    """A first delta with gaps names them, a damaged section is a StateError, an unknown section is ignored."""
    whole = snapshot(1, {}, {section: Version(1, 1) for section in SECTIONS})
    delta = whole.newer_than({})
    partial = msgspec.structs.replace(delta, sections={"ring": delta.sections["ring"]})
    with pytest.raises(StateError, match="config, machines"):
        partial.snapshot()
    for damaged in (
        b"",
        b"\xc1",
        b"\xff" * 9,
        msgspec.msgpack.encode("text"),
        b"\xa2\xff\xfe",
        b"\x81\xa4name\xa2\xff\xfe",
    ):
        broken = msgspec.structs.replace(delta, sections={**delta.sections, "ring": damaged})
        with pytest.raises(StateError, match="ring"):
            whole.merge(broken)
        with pytest.raises(StateError, match="ring"):
            broken.snapshot()
    newer = msgspec.structs.replace(delta, sections={**delta.sections, "steering": b"\xc1"})
    assert whole.merge(newer) == newer.snapshot() == whole


def test_actor_names() -> None:
    """An endpoint's Ray name holds its kind, number and generation."""
    assert Endpoint("zone", 3, 2, "n", "m", "/s").actor == "zone:3.g2"
