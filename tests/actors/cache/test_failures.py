"""What is said when nobody above answers: remembered failures (RFC 9520) and stale answers (RFC 8767)."""

from __future__ import annotations

from raydns.schemas import dns
from raydns.schemas.batch import AnswerFlag

from .world import NAME, SHARE, World, failure, negative, positive, rcode_of, ttls


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
