"""To whom a flight goes: query actors that are full, lost, silent, leaving or less busy than others."""

from __future__ import annotations

from raydns.actors.cache.departures import GRACE_S
from raydns.schemas.batch import AnswerFlag

from .world import NAME, World, positive, rcode_of


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
