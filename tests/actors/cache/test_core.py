"""The shard with a virtual clock and scripted query actors: hits and misses, what is kept, prefetched and flushed."""

from __future__ import annotations

import pytest

from raydns.schemas import dns, names
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryFlag, Room, stamp, stamps

from .world import NAME, SHARE, World, failure, message, negative, positive, query, rcode_of, ttls


def test_a_miss_goes_up_once_and_is_then_a_hit_with_what_is_left() -> None:
    """The first query leads a flight; later ones are answered here, TTLs counted down from now on."""
    world = World()
    first = world.ask(NAME)
    assert world.waits(first)
    assert len(world.upstream.asked) == 1
    world.upstream.answer(positive(NAME, 300, rooms=stamp(Room.QUERY, Outcome.OK, 2, 5, 6)))
    answer = world.got(first)
    assert (answer.fresh_s, answer.stale_s, ttls(answer)) == (300, 86400, [300])
    assert [r.room for r in stamps(answer.rooms)] == [Room.CACHE, Room.QUERY]
    assert world.room(first).outcome == Outcome.MISS
    world.step(100)
    again = world.ask(NAME)
    assert (world.got(again).fresh_s, ttls(world.got(again))) == (200, [200])
    assert world.room(again).outcome == Outcome.HIT
    assert world.got(again).layout
    assert len(world.upstream.asked) == 1


def test_what_distinguishes_queries_has_a_flight_and_an_entry_of_its_own() -> None:
    """Type, DO, CD, view and scope each make another key."""
    world = World()
    world.ask(NAME)
    world.ask(NAME, dns.Type.AAAA)
    world.ask(NAME, do=True)
    world.ask(NAME, cd=True)
    world.ask(NAME, view_id=1)
    world.ask(NAME, scope=24)
    assert len(world.upstream.asked) == 6
    # HTTPS is type 65, whose octet is an "A": lowering the question must not make it type 97.
    world.ask(NAME, 65)
    world.ask(NAME, 97)
    assert len(world.upstream.asked) == 8


def test_ttl_0_serves_those_who_wait_and_goes() -> None:
    """An answer with TTL 0 reaches all who wait and is asked for again by the next."""
    world = World()
    slots = [world.ask(NAME) for _ in range(5)]
    world.upstream.answer(positive(NAME, 0))
    assert all(world.got(slot).fresh_s == 0 for slot in slots)
    world.ask(NAME)
    assert len(world.upstream.asked) == 2


def test_authoritative_and_truncated_answers_are_not_kept() -> None:
    """They reach those who wait; the next query goes up again."""
    world = World()
    for answer in (
        positive(NAME, flags=SHARE | AnswerFlag.AUTHORITATIVE),
        AnswerItem(0, message(NAME, flags=dns.TC), SHARE, fresh_s=300),
    ):
        slots = [world.ask(NAME), world.ask(NAME)]
        world.upstream.answer(answer)
        assert [world.got(s).fresh_s for s in slots] == [0, 0]
    assert len(world.upstream.asked) == 2
    assert world.core.statistics()["entries"] == 0


@pytest.mark.parametrize("wrong", [b"", bytes(40), message("evil.example."), message(NAME)[:-1]])
def test_a_malformed_answer_is_servfail_and_not_kept(wrong: bytes) -> None:
    """Another question or a torn message from above harms nobody but its flight."""
    world = World()
    slot = world.ask(NAME)
    world.upstream.answer(AnswerItem(0, wrong, SHARE, fresh_s=300))
    got = world.got(slot)
    assert (rcode_of(got), got.ede) == (2, dns.Ede.INVALID_DATA)
    assert got.flags & AnswerFlag.LOCAL_FAILURE
    assert world.core.statistics()["entries"] == 0


def test_popular_names_are_prefetched_in_their_last_tenth() -> None:
    """Three hits in a life, then one in the last tenth: a flight that nobody waits for replaces the entry in time."""
    world = World()
    world.fill(NAME)
    for _ in range(3):
        world.ask(NAME)
    world.step(269)
    world.ask(NAME)
    assert len(world.upstream.asked) == 1
    world.step(2)
    hit = world.ask(NAME, trace_flags=1, trace_id=bytes(range(16)))
    assert world.room(hit).outcome == Outcome.HIT
    up = world.upstream.asked[1]
    assert up.flags & QueryFlag.PREFETCH
    assert up.trace_flags == 0
    world.ask(NAME)
    assert len(world.upstream.asked) == 2
    world.upstream.answer(positive(NAME, last=5))
    world.step(100)
    assert world.got(world.ask(NAME)).message[-1] == 5


def test_unpopular_names_and_a_busy_pool_prefetch_nothing() -> None:
    """Two hits are not popular; at half of the pool's limit prefetching stops; a failed one is not repeated at once."""
    world = World(in_flight_max=2)
    world.fill(NAME)
    world.step(280)
    world.ask(NAME)
    assert len(world.upstream.asked) == 1
    world.ask("busy.example.")
    for _ in range(5):
        world.ask(NAME)
    assert len(world.upstream.asked) == 2
    world.upstream.answer(positive("busy.example."))
    world.ask(NAME)
    assert len(world.upstream.asked) == 3
    world.upstream.answer(failure(NAME))
    assert world.room(world.ask(NAME)).outcome == Outcome.HIT
    assert len(world.upstream.asked) == 3


def test_a_prefetch_that_is_refused_is_not_repeated_at_each_hit() -> None:
    """The client whose hit led it had not the right: three more hits are needed for another try."""
    world = World()
    world.fill(NAME)
    world.step(280)
    for _ in range(3):
        world.ask(NAME)
    world.upstream.answer(failure(NAME, 5, flags=0))
    world.ask(NAME)
    world.ask(NAME)
    assert len(world.upstream.asked) == 2
    assert world.room(world.ask(NAME)).outcome == Outcome.HIT
    assert len(world.upstream.asked) == 3


def test_an_ingress_may_ask_for_a_refresh() -> None:
    """A PREFETCH item is a hit while much is left and leads a flight in the last tenth, answered when that lands."""
    world = World()
    world.fill(NAME)
    early = world.ask(NAME, flags=QueryFlag.PREFETCH)
    assert world.room(early).outcome == Outcome.HIT
    world.step(280)
    late = world.ask(NAME, flags=QueryFlag.PREFETCH)
    assert world.waits(late)
    world.upstream.answer(positive(NAME))
    assert world.got(late).fresh_s == 300


def test_lookup_only_is_answered_from_the_store_or_refused() -> None:
    """RD=0 never goes upstream: a hit, or REFUSED with EDE 20 for this slot only; it never joins a flight."""
    world = World()
    leader = world.ask(NAME)
    slot = world.ask(NAME, flags=QueryFlag.LOOKUP_ONLY)
    refused = world.got(slot)
    assert (rcode_of(refused), refused.ede) == (5, dns.Ede.NOT_AUTHORITATIVE)
    assert not refused.flags & AnswerFlag.SHAREABLE
    world.upstream.answer(positive(NAME))
    assert rcode_of(world.got(leader)) == 0
    assert rcode_of(world.got(world.ask(NAME, flags=QueryFlag.LOOKUP_ONLY))) == 0
    assert len(world.upstream.asked) == 1


def test_a_flush_removes_entries_failures_and_answers_in_flight() -> None:
    """A flush by subtree: older entries and failures are gone, and older flights are neither kept nor joined."""
    world = World()
    world.fill("a.b.example.")
    world.fill("a.c.example.")
    world.ask("f.b.example.")
    world.upstream.answer(failure("f.b.example."))
    old = world.ask("x.b.example.")
    world.flush("b.example.", subtree=True)
    for name in ("a.b.example.", "f.b.example.", "x.b.example."):
        world.ask(name)
    assert [names.labels(q.message[12:])[0] for q in world.upstream.asked[-3:]] == [b"a", b"f", b"x"]
    assert world.room(world.ask("a.c.example.")).outcome == Outcome.HIT
    slot_of_old = world.upstream.open_slots[0]
    world.upstream.answer(positive("x.b.example.", last=1), slot_of_old)
    assert world.got(old).message[-1] == 1
    world.upstream.answer(positive("x.b.example.", last=2), world.upstream.open_slots[-1])
    assert world.got(world.ask("x.b.example.")).message[-1] == 2


def test_a_flush_of_one_name_spares_those_below() -> None:
    """Without subtree only the name itself goes; an answer with an older ``began`` from above is not kept either."""
    world = World()
    world.fill("b.example.")
    world.fill("a.b.example.")
    world.flush("b.example.")
    assert world.room(world.ask("a.b.example.")).outcome == Outcome.HIT
    world.ask("b.example.")
    world.upstream.answer(positive("b.example.", began=world.version - 1))
    world.ask("b.example.")
    assert world.upstream.in_flight == 1


def test_a_stale_entry_that_was_flushed_is_not_served() -> None:
    """What an operator flushed must not come back as a stale answer of a flight that began before."""
    world = World()
    world.fill(NAME)
    world.step(301)
    slot = world.ask(NAME)
    world.flush(NAME)
    world.upstream.answer(failure(NAME))
    assert rcode_of(world.got(slot)) == 2


def test_turning_the_cache_off_empties_it() -> None:
    """A reload with cache.enabled=false frees what was held."""
    world = World()
    world.fill(NAME)
    world.settings = type(world.settings)(enabled=False)
    world.install()
    assert world.core.statistics()["entries"] == 0


def test_what_is_no_query_is_formerr_and_no_exception() -> None:
    """Octets that no ingress should have let through: FORMERR for this slot."""
    world = World()
    for data in (b"", bytes(11), bytes(12), query(NAME)[:-1], query(NAME) + b"x", b"\xff" * 40):
        assert rcode_of(world.got(world.send(data))) == 1


def test_too_large_answers_are_not_kept() -> None:
    """An answer above an eighth of the shard is delivered but would push out all others."""
    world = World(bytes_max=65536)
    slot = world.ask(NAME)
    body = message(NAME, answer=[b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04" + bytes(4)] * 600)
    world.upstream.answer(AnswerItem(0, body, SHARE, fresh_s=60))
    assert world.got(slot).fresh_s == 60
    assert world.core.statistics()["entries"] == 0


def test_metrics_name_what_happened() -> None:
    """Every family follows the naming rule, and the counters say what the queries met."""
    world = World()
    world.fill(NAME)
    world.ask(NAME)
    world.fill("no.example.", negative("no.example."))
    world.ask("no.example.")
    families = {f.name: f for f in world.core.families()}
    assert all(name.startswith("raydns_cache_") and f.help.endswith(".") for name, f in families.items())
    assert families["raydns_cache_hits_total"].samples[0].value == 2
    assert families["raydns_cache_negative_total"].samples[0].value == 1
    assert families["raydns_cache_misses_total"].samples[0].value == 2
    assert families["raydns_cache_entries"].samples[0].value == 2
    latency = families["raydns_cache_latency_seconds"].samples
    assert sum(sum(s.histogram.counts) for s in latency if s.histogram) == 4
