"""Who waits for what: one flight a key, with a deadline of its own, and each waiter answered exactly once."""

from __future__ import annotations

from raydns.schemas import dns
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryFlag, Right

from .world import NAME, World, failure, positive, query, rcode_of, ttls


def test_two_hundred_equal_queries_are_one_item_up_and_200_answers() -> None:
    """Single flight: one upstream query whatever the case, and everybody gets the answer once."""
    world = World()
    slots = [world.ask("wWw.eXample." if n % 2 else NAME) for n in range(200)]
    assert len(world.upstream.asked) == 1
    world.upstream.answer(positive(NAME))
    assert all(ttls(world.got(slot)) == [300] for slot in slots)
    assert [world.room(slot).outcome for slot in slots[:2]] == [Outcome.MISS, Outcome.JOINED]
    assert world.core.statistics()["in_flight"] == 0


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
