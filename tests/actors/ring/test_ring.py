"""The ring: balance, stability, determinism, distinct machines."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.actors.ring import Shard, build, moved_share, shares
from raydns.schemas import names
from raydns.schemas.cluster import RingTable
from raydns.schemas.errors import StateError

SEED = 0x5EED
FACTOR = 1.15
SLACK = 0.03  # of the whole space: what the lower bounds force out of the others when one comes


@st.composite
def fleets(draw: st.DrawFn, smallest: int = 1) -> list[Shard]:
    """Shards with distinct indices on a few machines."""
    indices = draw(st.lists(st.integers(0, 40), min_size=smallest, max_size=9, unique=True))
    return [Shard(i, f"m{draw(st.integers(0, 4))}", draw(st.sampled_from([0.5, 1.0, 1.0, 1.0, 2.0]))) for i in indices]


def make(shards: list[Shard], previous: RingTable | None = None, nodes: int = 64) -> RingTable:
    """A table with the seed and factor of these tests."""
    return build(shards, seed=SEED, virtual_nodes=nodes, version=7, load_factor=FACTOR, previous=previous)


@given(fleets(), st.integers(1, 64))
@settings(max_examples=40, deadline=None)
def test_no_share_exceeds_its_bound(shards: list[Shard], nodes: int) -> None:
    """Each shard's share is at most the load factor times its fair share, whatever the number of points."""
    total = sum(s.weight for s in shards)
    found = shares(make(shards, nodes=nodes))
    assert sum(found.values()) == pytest.approx(1.0)
    for shard in shards:
        assert found.get(shard.index, 0.0) <= FACTOR * shard.weight / total + 1e-9


@given(fleets(), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_the_order_of_shards_does_not_matter(shards: list[Shard], rng: random.Random) -> None:
    """The same members in another order give the same table, with and without a previous one."""
    shuffled = list(shards)
    rng.shuffle(shuffled)
    table = make(shards)
    assert make(shuffled) == table
    assert make(shuffled, table) == make(shards, table)


@given(fleets(), st.lists(st.integers(0, 2**64 - 1), max_size=50))
@settings(max_examples=40, deadline=None)
def test_every_hash_has_an_owner(shards: list[Shard], hashes: list[int]) -> None:
    """Every hash, the edges of the space included, has a first shard that is a member, and a second where possible."""
    table = make(shards)
    members = {s.index: s.machine for s in shards}
    assert table.bounds == sorted(set(table.bounds))
    assert table.bounds[-1] == 2**64 - 1
    for name_hash in [0, 2**64 - 1, *hashes, *table.bounds]:
        first, second = table.owners(name_hash)
        assert first in members
        assert (second in members and second != first) if len(members) > 1 else second == -1


@given(fleets(smallest=2))
@settings(max_examples=60, deadline=None)
def test_second_is_on_another_machine(shards: list[Shard]) -> None:
    """First and second stand on distinct machines wherever there are two machines."""
    machines = {s.index: s.machine for s in shards}
    table = make(shards)
    if len(set(machines.values())) > 1:
        assert all(machines[a] != machines[b] for a, b in zip(table.first, table.second, strict=True))


@given(st.integers(1, 12))
@settings(max_examples=12, deadline=None)
def test_one_more_shard_moves_its_share(count: int) -> None:
    """Adding one of n shards moves about 1/n of the names: its own share, and little besides."""
    before = make([Shard(i, f"m{i}") for i in range(count)])
    after = make([Shard(i, f"m{i}") for i in range(count + 1)], before)
    moved = moved_share(before, after)
    own = shares(after)[count]
    assert own > 0.5 / (count + 1)
    assert own <= moved <= own + SLACK
    assert moved <= FACTOR / (count + 1) + SLACK


@given(fleets(smallest=2), st.data())
@settings(max_examples=60, deadline=None)
def test_a_shard_that_leaves_moves_only_its_own(shards: list[Shard], data: st.DataObject) -> None:
    """Removing a shard moves exactly the names that it had."""
    leaving = data.draw(st.sampled_from(shards))
    before = make(shards)
    after = make([s for s in shards if s is not leaving], before)
    assert moved_share(before, after) == pytest.approx(shares(before).get(leaving.index, 0.0))
    assert leaving.index not in after.first + after.second


@given(st.lists(st.booleans(), min_size=1, max_size=15))
@settings(max_examples=20, deadline=None)
def test_bounds_hold_through_a_history(steps: list[bool]) -> None:
    """However shards came and went, the bound holds and the table stays small."""
    count, table = 3, make([Shard(i, f"m{i % 3}") for i in range(3)])
    for more in steps:
        count = min(count + 1, 8) if more else max(count - 1, 1)
        table = make([Shard(i, f"m{i % 3}") for i in range(count)], table)
        assert max(shares(table).values()) <= FACTOR / count + 1e-9
    assert len(table.bounds) < 20 * 64 * 8


def test_nothing_moves_without_a_reason() -> None:
    """The same members again, in whatever version, leave every name where it is."""
    shards = [Shard(i, f"m{i}") for i in range(5)]
    table = make(shards)
    assert moved_share(table, make(shards, table)) == 0.0


def test_names_spread_as_the_hashes_do() -> None:
    """Real names, not only the space, are spread within the bound and a sampling error."""
    table = make([Shard(i, f"m{i}") for i in range(4)])
    counts = dict.fromkeys(range(4), 0)
    for n in range(20_000):
        counts[table.owners(names.ring_hash(names.from_text(f"host-{n}.example."), SEED))[0]] += 1
    assert max(counts.values()) <= 20_000 / 4 * FACTOR * 1.05


def test_golden_vectors() -> None:
    """For a fixed seed the table is the same on every machine and in every release: other languages rely on it."""
    table = build([Shard(0, "a"), Shard(1, "b"), Shard(2, "a")], seed=1, virtual_nodes=2, version=3)
    assert [(f"{b:016x}", f, s) for b, f, s in zip(table.bounds, table.first, table.second, strict=True)] == GOLDEN
    assert names.ring_hash(b"cache:0#0", 1) == 0xFD8474A6282E14AB


def test_a_ring_without_shards_is_empty() -> None:
    """No members, or only members of weight 0, make a table that owns nothing and says so."""
    for shards in ([], [Shard(0, "a", 0.0)]):
        table = make(shards)
        assert table.owners(5) == (-1, -1)
        assert shares(table) == {}
    full = make([Shard(0, "a")])
    assert moved_share(make([]), full) == 1.0
    assert moved_share(make([]), make([])) == 0.0


@pytest.mark.parametrize(
    ("shards", "nodes", "factor"),
    [
        ([Shard(1, "a"), Shard(1, "b")], 64, 1.15),
        ([Shard(1, "a", -1.0)], 64, 1.15),
        ([Shard(1, "a", float("nan"))], 64, 1.15),
        ([Shard(1, "a", 1e9)], 64, 1.15),
        ([Shard(-1, "a")], 64, 1.15),
        ([Shard(1, "a")], 0, 1.15),
        ([Shard(1, "a")], 64, 0.9),
        ([Shard(1, "a")], 64, float("nan")),
    ],
)
def test_nonsense_is_refused_with_a_sentence(shards: list[Shard], nodes: int, factor: float) -> None:
    """An index twice, or a weight, number of points or factor without sense, is a StateError that says so."""
    with pytest.raises(StateError) as caught:
        build(shards, seed=1, virtual_nodes=nodes, version=1, load_factor=factor)
    assert len(caught.value.message) > 10


def test_many_small_weights_do_not_break_the_fractions() -> None:
    """Weights that no binary fraction holds exactly still cover the space to the last hash."""
    shards = [Shard(i, f"m{i}", 0.1 + i * 0.7) for i in range(7)]
    table = make(shards)
    assert sum(shares(table).values()) == pytest.approx(1.0)
    assert table.bounds[-1] == 2**64 - 1


GOLDEN: list[tuple[str, int, int]] = [
    ("49c1c9c5efa6e726", 1, 2),
    ("abe3ebe811c90726", 2, 1),
    ("dd284248256c7ead", 0, 1),
    ("f5889aa457e7b786", 1, 0),
    ("ffffffffffffffff", 0, 1),
]
