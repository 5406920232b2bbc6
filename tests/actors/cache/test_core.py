"""The shard with a virtual clock and scripted query actors: hits, misses, flights, failures, stale, flushes."""

from __future__ import annotations

import pytest

from raydns.actors.cache.departures import GRACE_S
from raydns.schemas import dns, names
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryFlag, Right, Room, stamp, stamps

from .world import World, failure, message, negative, positive, query, rcode_of, ttls

NAME = "www.example."
SHARE = AnswerFlag.SHAREABLE


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


def test_two_hundred_equal_queries_are_one_item_up_and_200_answers() -> None:
    """Single flight: one upstream query whatever the case, and everybody gets the answer once."""
    world = World()
    slots = [world.ask("wWw.eXample." if n % 2 else NAME) for n in range(200)]
    assert len(world.upstream.asked) == 1
    world.upstream.answer(positive(NAME))
    assert all(ttls(world.got(slot)) == [300] for slot in slots)
    assert [world.room(slot).outcome for slot in slots[:2]] == [Outcome.MISS, Outcome.JOINED]
    assert world.core.statistics()["in_flight"] == 0


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


def test_a_flight_has_its_own_deadline_and_budget() -> None:
    """What goes up has the flight's time and budget, whatever was left of its leader's."""
    world = World()
    world.ask(NAME, deadline_ms=50, queries_left=1, octets_left=10, cname_left=0, rights=Right.FORWARD, class_id=3)
    up = world.upstream.asked[0]
    assert (up.deadline_ms, up.queries_left, up.octets_left, up.cname_left) == (7000, 128, 100_000, 11)
    assert (up.rights, up.class_id, up.state_version) == (Right.FORWARD, 3, world.version)


def test_a_started_flight_finishes_without_its_waiters_and_is_kept() -> None:
    """The leader's deadline passes: it gets SERVFAIL, and the answer that comes later is kept."""
    world = World()
    slot = world.ask(NAME, deadline_ms=300)
    world.step(0.31)
    late = world.got(slot)
    assert (rcode_of(late), late.flags & AnswerFlag.LOCAL_FAILURE) == (2, AnswerFlag.LOCAL_FAILURE)
    assert (late.ede_text, world.room(slot).outcome) == ("no answer in time", Outcome.TIMEOUT)
    world.upstream.answer(positive(NAME))
    assert world.room(world.ask(NAME)).outcome == Outcome.HIT


def test_an_unwanted_flight_that_has_not_started_is_dropped() -> None:
    """With no query actor there, a flight waits for one; when nobody waits any more it never starts."""
    world = World()
    world.upstream.connected = False
    slot = world.ask(NAME, deadline_ms=300)
    wanted = world.ask("other.example.")
    world.step(0.5)
    assert world.got(slot).ede == dns.Ede.NOT_READY
    world.upstream.connected = True
    world.core.reachable()
    assert [bytes(q.message[12:18]) for q in world.upstream.asked] == [b"\x05other"]
    world.upstream.answer(positive("other.example."))
    assert rcode_of(world.got(wanted)) == 0


def test_waiters_are_bounded() -> None:
    """One more than waiters_max is turned away at once, with EDE, and its failure is not for keeping."""
    world = World(waiters_max=3)
    slots = [world.ask(NAME) for _ in range(4)]
    assert world.got(slots[3]).ede_text == "busy"
    assert world.got(slots[3]).flags & AnswerFlag.LOCAL_FAILURE
    world.upstream.answer(positive(NAME))
    assert all(rcode_of(world.got(slot)) == 0 for slot in slots[:3])


def test_an_answer_for_this_slot_only_goes_to_the_leader_and_the_next_leads() -> None:
    """A refusal is neither shared nor kept: each waiter leads in turn, with its own rights, until one is answered."""
    world = World()
    slots = [world.ask(NAME, class_id=n, deadline_ms=7000) for n in range(4)]
    for n in range(2):
        world.upstream.answer(failure(NAME, 5, flags=0, ede=18))
        assert (rcode_of(world.got(slots[n])), world.room(slots[n]).outcome) == (5, Outcome.REFUSED)
        assert world.waits(slots[n + 1])
        assert world.upstream.asked[-1].class_id == n + 1
    world.upstream.answer(positive(NAME))
    assert rcode_of(world.got(slots[2])) == rcode_of(world.got(slots[3])) == 0
    assert len(world.upstream.asked) == 3
    assert world.room(world.ask(NAME)).outcome == Outcome.HIT


def test_failures_are_remembered_for_5_seconds_doubling() -> None:
    """RFC 9520: a failing name is asked for again only after 5, 10, … seconds; a success forgets the series."""
    world = World()
    for span in (5, 10, 20):
        slot = world.ask(NAME)
        world.upstream.answer(failure(NAME))
        assert (rcode_of(world.got(slot)), world.got(slot).ede, world.got(slot).fresh_s) == (2, 22, span)
        world.step(span - 0.5)
        cached = world.got(world.ask(NAME))
        assert (rcode_of(cached), cached.ede, cached.fresh_s) == (2, dns.Ede.CACHED_ERROR, 0)
        assert not cached.flags & AnswerFlag.LOCAL_FAILURE
        assert world.upstream.in_flight == 0
        world.step(0.5)
    slot = world.ask(NAME)
    world.upstream.answer(positive(NAME, 1))
    world.step(90_000)
    world.ask(NAME)
    world.upstream.answer(failure(NAME))
    world.step(6)
    world.ask(NAME)
    assert world.upstream.in_flight == 1


def test_failures_of_our_own_making_are_never_remembered() -> None:
    """Budget, shedding, deadline: told to those who wait, and the next query starts a new flight."""
    world = World()
    slots = [world.ask(NAME), world.ask(NAME)]
    world.upstream.answer(failure(NAME, flags=SHARE | AnswerFlag.LOCAL_FAILURE))
    assert [world.got(s).fresh_s for s in slots] == [0, 0]
    world.ask(NAME)
    assert world.upstream.in_flight == 1


def test_a_failure_never_replaces_a_usable_entry() -> None:
    """SERVFAIL and REFUSED from above leave the stale answer in force: TTL 30, EDE 3, tried again after 30 s."""
    for rcode in (2, 5):
        world = World()
        world.fill(NAME)
        world.step(301)
        slot = world.ask(NAME)
        assert world.waits(slot)
        world.upstream.answer(failure(NAME, rcode))
        stale = world.got(slot)
        assert (rcode_of(stale), ttls(stale), stale.ede, stale.fresh_s) == (0, [30], dns.Ede.STALE_ANSWER, 30)
        assert stale.flags & AnswerFlag.STALE
        world.step(29)
        at_once = world.got(world.ask(NAME))
        assert at_once.flags & AnswerFlag.STALE
        assert world.upstream.in_flight == 0
        world.step(2)
        again = world.ask(NAME)
        world.upstream.answer(positive(NAME, last=9))
        assert (world.got(again).message[-1], world.got(again).fresh_s) == (9, 300)


def test_a_stale_negative_answer_says_so() -> None:
    """EDE 19 where the stale answer is NXDOMAIN."""
    world = World()
    world.fill("no.example.", negative("no.example."))
    world.step(61)
    slot = world.ask("no.example.")
    world.upstream.answer(failure("no.example.", flags=AnswerFlag.LOCAL_FAILURE))
    assert (rcode_of(world.got(slot)), world.got(slot).ede) == (3, dns.Ede.STALE_NXDOMAIN)


def test_stale_is_served_after_the_wait_while_the_flight_goes_on() -> None:
    """RFC 8767: after 1.8 s those who wait get the stale answer; who comes later gets it at once; the flight lands."""
    world = World()
    world.fill(NAME)
    world.step(400)
    slot = world.ask(NAME)
    world.step(1.7)
    assert world.waits(slot)
    world.step(0.2)
    assert world.got(slot).flags & AnswerFlag.STALE
    assert world.got(slot).fresh_s == 0
    assert world.got(world.ask(NAME)).flags & AnswerFlag.STALE
    assert world.upstream.in_flight == 1
    world.upstream.answer(positive(NAME, last=7))
    assert world.got(world.ask(NAME)).message[-1] == 7


def test_nothing_is_stale_beyond_its_window_or_where_it_is_off() -> None:
    """After stale_max, or with stale answers off, a failure is a failure."""
    for world, age in ((World(stale_max=100), 401), (World(stale_max=0), 301)):
        world.fill(NAME)
        world.step(age)
        slot = world.ask(NAME)
        world.upstream.answer(failure(NAME))
        assert rcode_of(world.got(slot)) == 2


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


def test_names_under_an_apex_are_coalesced_and_never_kept() -> None:
    """APEX items of one key share a flight of their own, RD=0 or not, and the answer is not kept."""
    world = World()
    slots = [
        world.ask(NAME, flags=QueryFlag.APEX),
        world.ask(NAME, flags=(QueryFlag.APEX | QueryFlag.LOOKUP_ONLY)),
    ]
    world.ask(NAME)
    assert len(world.upstream.asked) == 2
    world.upstream.answer(positive(NAME))
    assert all(rcode_of(world.got(slot)) == 0 for slot in slots)
    assert world.core.statistics()["entries"] == 0


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


def test_without_a_cache_there_is_still_single_flight() -> None:
    """cache.enabled=false: nothing is kept, failures neither, but equal queries at once are one flight."""
    world = World(enabled=False)
    slots = [world.ask(NAME) for _ in range(10)]
    world.upstream.answer(positive(NAME))
    assert all(rcode_of(world.got(slot)) == 0 for slot in slots)
    world.ask(NAME)
    world.upstream.answer(failure(NAME))
    world.ask(NAME)
    assert len(world.upstream.asked) == 3


def test_turning_the_cache_off_empties_it() -> None:
    """A reload with cache.enabled=false frees what was held."""
    world = World()
    world.fill(NAME)
    world.settings = type(world.settings)(enabled=False)
    world.install()
    assert world.core.statistics()["entries"] == 0


def test_all_query_actors_full_is_servfail_at_once() -> None:
    """Back-pressure: the newest is shed with EDE, those in flight are not."""
    world = World(in_flight_max=2)
    kept = [world.ask("a.example."), world.ask("b.example.")]
    shed = world.ask("c.example.")
    assert (rcode_of(world.got(shed)), world.got(shed).ede_text) == (2, "busy")
    assert all(world.waits(slot) for slot in kept)
    assert world.core.statistics()["shed"] == 1


def test_a_lost_query_actor_is_replaced_once() -> None:
    """Its unanswered flights are asked once more at another; if that is lost too, SERVFAIL of our own making."""
    world = World(upstreams=2)
    slot = world.ask(NAME)
    asked = [u for u in world.upstreams if u.asked]
    asked[0].lose()
    other = next(u for u in world.upstreams if u is not asked[0])
    assert len(other.asked) == 1
    assert world.waits(slot)
    asked[0].connected = True
    other.lose()
    got = world.got(slot)
    assert (rcode_of(got), got.flags & AnswerFlag.LOCAL_FAILURE) == (2, AnswerFlag.LOCAL_FAILURE)
    assert world.core.statistics()["in_flight"] == 0


def test_the_only_query_actor_may_come_back() -> None:
    """With nobody else there, a lost flight waits for the actor that Ray is starting again."""
    world = World()
    slot = world.ask(NAME)
    world.upstream.lose()
    assert world.waits(slot)
    world.step(1)
    world.upstream.connected = True
    world.core.reachable()
    assert world.upstream.asked[-1].deadline_ms == 6000
    world.upstream.answer(positive(NAME))
    assert rcode_of(world.got(slot)) == 0


def test_flights_of_an_actor_that_leaves_the_pool_go_on_elsewhere() -> None:
    """A snapshot without an actor: its flights are asked again at once, not when its stream has been closed."""
    world = World(upstreams=2)
    slots = [world.ask(f"n{n}.example.") for n in range(4)]
    world.core.connect([(world.upstreams[1], False)], {})
    assert (world.upstreams[0].in_flight, world.upstreams[1].in_flight) == (0, 4)
    for n in (1, 3, 0, 2):
        world.upstreams[1].answer(positive(f"n{n}.example."))
    assert all(rcode_of(world.got(slot)) == 0 for slot in slots)


def test_a_silent_query_actor_ends_in_servfail_and_is_suspended() -> None:
    """A flight's own deadline passes without a word: SERVFAIL here, dropped there; after three, others are used."""
    world = World(upstreams=2)
    world.upstreams[1].connected = False
    for n in range(3):
        slot = world.ask(f"n{n}.example.", deadline_ms=60_000)
        world.step(7 + GRACE_S + 0.05)
        assert world.got(slot).ede_text == "no answer in time"
    assert len(world.upstream.dropped) == 3
    world.upstreams[1].connected = True
    for n in range(10):
        world.ask(f"m{n}.example.")
    assert len(world.upstreams[1].asked) == 10
    world.upstreams[1].connected = False
    world.ask("last.example.")  # with all suspended, the least bad is used
    assert len(world.upstream.asked) == 4


def test_the_less_busy_of_two_is_chosen() -> None:
    """Flights spread by what is in flight; one that is draining gets none."""
    world = World(upstreams=2)
    for n in range(10):
        world.ask(f"n{n}.example.")
    assert [u.in_flight for u in world.upstreams] == [5, 5]
    world.core.connect([(world.upstreams[0], True), (world.upstreams[1], False)], {})
    for n in range(5):
        world.ask(f"m{n}.example.")
    assert [u.in_flight for u in world.upstreams] == [5, 10]


def test_a_transfer_passes_through_with_all_its_parts() -> None:
    """AXFR and UPDATE: each query its own flight; parts marked MORE reach it in order, and nothing is kept."""
    world = World()
    slots = [world.ask("example.", dns.Type.AXFR), world.ask("example.", dns.Type.AXFR)]
    assert len(world.upstream.asked) == 2
    for part in (1, 2):
        world.upstream.answer(positive("example.", last=part, flags=AnswerFlag.MORE), world.upstream.open_slots[0])
        world.step(5)
    world.upstream.answer(positive("example.", last=3, flags=0), world.upstream.open_slots[0])
    assert [a.message[-1] for a in world.answers[slots[0]]] == [1, 2, 3]
    assert world.got(slots[1]).ede_text == "no answer in time"  # no part of its own came
    update = world.send(query("example.", 6, opcode=5))
    world.upstream.answer(AnswerItem(0, b"anything"), world.upstream.open_slots[-1])
    assert world.got(update).message == b"anything"


def test_what_is_no_query_is_formerr_and_no_exception() -> None:
    """Octets that no ingress should have let through: FORMERR for this slot."""
    world = World()
    for data in (b"", bytes(11), bytes(12), query(NAME)[:-1], query(NAME) + b"x", b"\xff" * 40):
        assert rcode_of(world.got(world.send(data))) == 1


def test_leaving_answers_everybody() -> None:
    """A shard that drains answers who still waits, flushed flights included, and owes nothing."""
    world = World()
    slots = [world.ask(NAME), world.ask("b.example.")]
    world.flush(NAME)
    slots.append(world.ask(NAME))
    world.core.abandon()
    assert all(rcode_of(world.got(slot)) == 2 for slot in slots)
    world.upstream.answer(positive(NAME))
    assert world.core.statistics()["in_flight"] == 0


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
