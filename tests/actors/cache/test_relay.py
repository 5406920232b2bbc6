"""The ring in the shard, and traces: relays, marks, spans."""

from __future__ import annotations

from typing import Any

from raydns.actors.ring import Shard, build
from raydns.schemas import names
from raydns.schemas.batch import AnswerFlag, Outcome, QueryFlag

from .world import Upstream, World, failure, positive, rcode_of

RING = build([Shard(n, f"m{n}") for n in range(4)], seed=9, virtual_nodes=16, version=77)


def named(first: int, *, without: int) -> str:
    """A name that ``first`` owns and ``without`` does not own even as second."""
    for n in range(10_000):
        name = f"n{n}.example."
        owners = RING.owners(names.ring_hash(names.from_text(name), RING.seed))
        if owners[0] == first and without not in owners:
            return name
    raise AssertionError


def ringed(index: int = 0) -> World:
    """A shard of four, with streams to the other three."""
    world = World(index=index)
    world.ring = RING
    world.peers = {n: Upstream() for n in range(4) if n != index}
    world.install()
    return world


def test_a_non_owner_relays_once_and_keeps_nothing() -> None:
    """The item goes marked to the owner; the answer comes back with what the owner said and our ring's version."""
    world = ringed()
    name = named(1, without=0)
    slots = [world.ask(name), world.ask(name)]
    up = world.peers[1].asked
    assert [bool(q.flags & QueryFlag.RELAYED) for q in up] == [True]
    assert not world.upstream.asked
    world.peers[1].answer(positive(name, 300, fresh_s=123, stale_s=9, began=5))
    for slot in slots:
        got = world.got(slot)
        assert (got.fresh_s, got.stale_s, got.began, got.ring_version) == (123, 9, 5, 77)
    world.ask(name)
    assert len(world.peers[1].asked) == 2


def test_owners_and_relayed_items_are_answered_here() -> None:
    """First and second owner answer; so does anybody to whom an item was relayed, whatever its table says."""
    world = ringed()
    name = named(1, without=0)
    slot = world.ask(name, flags=QueryFlag.RELAYED)
    assert len(world.upstream.asked) == 1
    world.upstream.answer(positive(name))
    assert rcode_of(world.got(slot)) == 0
    # What is held here is served, relayed or not.
    assert world.room(world.ask(name)).outcome == Outcome.HIT
    for n in range(60):
        owners = RING.owners(names.ring_hash(names.from_text(f"o{n}.example."), RING.seed))
        if 0 in owners:
            world.ask(f"o{n}.example.")
    assert not any(peer.asked for peer in world.peers.values())


def test_a_relayed_item_never_waits_for_a_relay() -> None:
    """Two shards that take each other for the owner must not wait for one another."""
    world = ringed()
    name = named(1, without=0)
    waiting = world.ask(name)
    relayed = world.ask(name, flags=QueryFlag.RELAYED)
    assert len(world.upstream.asked) == 1
    world.upstream.answer(positive(name))
    assert rcode_of(world.got(relayed)) == 0
    assert world.waits(waiting)


def test_an_owner_that_cannot_be_reached_is_stood_in_for() -> None:
    """Owner down: its second is asked; both down, or lost on the way: answered here."""
    world = ringed()
    name = named(1, without=0)
    first, second = RING.owners(names.ring_hash(names.from_text(name), RING.seed))
    world.peers[first].connected = False
    slot = world.ask(name)
    assert len(world.peers[second].asked) == 1
    world.peers[second].lose()
    assert len(world.upstream.asked) == 1
    assert not world.upstream.asked[0].flags & QueryFlag.RELAYED
    world.upstream.answer(positive(name))
    assert rcode_of(world.got(slot)) == 0


def test_the_hash_that_came_with_the_item_is_used() -> None:
    """The ingress has hashed already; its hash decides."""
    world = ringed()
    name = named(1, without=0)
    mine = next(b for b, f in zip(RING.bounds, RING.first, strict=True) if f == 0)
    world.ask(name, ring_hash=mine)
    assert len(world.upstream.asked) == 1


def test_lookup_only_asks_the_owner_and_stays_apart() -> None:
    """RD=0 is relayed too, in a flight of its own: its refusal is not the answer of those with RD=1."""
    world = ringed()
    name = named(1, without=0)
    normal = world.ask(name)
    lookup = world.ask(name, flags=QueryFlag.LOOKUP_ONLY)
    assert len(world.peers[1].asked) == 2
    world.peers[1].answer(failure(name, 5, flags=AnswerFlag.LOCAL_FAILURE, ede=20), world.peers[1].open_slots[1])
    assert rcode_of(world.got(lookup)) == 5
    assert world.waits(normal)


class Spans:
    """Takes spans as a tracer does."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.made = 0

    def new_span_id(self) -> bytes:
        self.made += 1
        return bytes((0, 0, 0, 0, 0, 0, 0, self.made))

    def record(self, name: str, **fields: Any) -> None:
        self.spans.append({"name": name, **fields})


def test_a_sampled_query_has_a_span_that_is_the_parent_of_what_goes_up() -> None:
    """The span's id travels on; its parent is the one that came; the answer is marked as traced."""
    spans = Spans()
    world = World(tracer=spans)
    trace, parent = bytes(range(16)), bytes(range(8))
    slot = world.ask("www.example.", trace_id=trace, span_id=parent, trace_flags=1)
    joined = world.ask("www.example.", trace_id=trace, span_id=parent, trace_flags=1)
    up = world.upstream.asked[0]
    assert (up.trace_id, up.trace_flags) == (trace, 1)
    world.now += 0.01
    world.upstream.answer(positive("www.example."))
    follower, leader = spans.spans  # the leader is answered last
    assert (leader["name"], leader["trace_id"], leader["parent_id"], leader["span_id"]) == (
        "cache.lookup",
        trace,
        parent,
        up.span_id,
    )
    assert leader["span_id"] != parent
    assert leader["end_us"] - leader["start_us"] in range(9_900, 10_100)
    assert [s["attributes"]["raydns.outcome"] for s in (leader, follower)] == ["miss", "joined"]
    assert world.got(slot).flags & world.got(joined).flags & AnswerFlag.TRACED


def test_an_unsampled_query_makes_no_span() -> None:
    """No id, no record: what is not sampled costs nothing."""
    spans = Spans()
    world = World(tracer=spans)
    world.fill("www.example.")
    slot = world.ask("www.example.")
    assert (spans.made, spans.spans) == (0, [])
    assert not world.got(slot).flags & AnswerFlag.TRACED
