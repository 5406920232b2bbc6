"""Flights: one item however many wait, bounds, deadlines, stale answers, shards that go and come."""

from __future__ import annotations

import dns.edns
import dns.message
import dns.rcode
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.nodes.ingress.waiting import TICK_S, Wheel
from raydns.schemas.batch import AnswerFlag, AnswerItem, QueryItem
from raydns.schemas.cluster import RingTable, Version

from .harness import TWO_SHARDS, Counter, answer, ask, state


def ede(message: dns.message.Message) -> list[int]:
    """The Extended DNS Errors of a reply."""
    return [int(option.code) for option in message.options if isinstance(option, dns.edns.EDEOption)]


def idle(counter: Counter) -> bool:
    """Whether nothing at all is left of any query."""
    flights = counter.desk.flights
    return not (flights.waiting or flights.in_flight or flights.queued or counter.desk.wheel or flights._by_key)


def test_two_hundred_equal_queries_are_one_item() -> None:
    """One cold name asked 200 times at once goes up once and is answered 200 times, each with its own ID and case."""
    counter = Counter()
    for number in range(200):
        name = "".join(c.upper() if number >> i & 1 else c for i, c in enumerate("www.example.com"))
        counter.pending(name, port=2000 + number, id=number)
    assert len(counter.serve()) == 1
    made = counter.door.messages()
    assert {message.id for message in made} == set(range(200))
    assert len({message.question[0].name.to_text() for message in made}) > 50
    assert all(message.answer[0][0].to_text() == "192.0.2.1" for message in made)
    assert idle(counter)


def test_a_retransmission_is_answered_once() -> None:
    """The same source, port and ID again joins and gets no second reply; another ID does."""
    counter = Counter()
    for ident in (7, 7, 7, 8):
        counter.pending("www.example.com", id=ident)
    counter.serve()
    assert sorted(message.id for message in counter.door.messages()) == [7, 8]


def test_an_answer_for_one_slot_goes_to_its_leader_and_the_next_one_leads() -> None:
    """A refusal or a rate limit is not shared; who leads next is told to the shard as the one it is charged to."""
    counter = Counter()
    for number in range(3):
        counter.pending("www.example.com", port=3000 + number, host=f"10.0.0.{number + 1}")
    leaders = []
    for _ in range(2):
        (item,) = counter.serve(lambda item: answer(item, rcode=5, flags=0))
        leaders.append((item.source[-1], item.source_port))
    counter.serve()
    assert leaders == [(1, 3000), (2, 3001)]
    assert [message.rcode() for message in counter.door.messages()] == [5, 5, 0]
    assert idle(counter)


def test_a_failure_of_our_own_making_is_told_to_all_at_once() -> None:
    """A shed or overdue flight is not tried again for each who waits, and not kept."""
    counter = Counter()
    for number in range(5):
        counter.pending("www.example.com", port=3000 + number)
    counter.serve(lambda item: answer(item, rcode=2, flags=AnswerFlag.LOCAL_FAILURE, fresh_s=5))
    assert [message.rcode() for message in counter.door.messages()] == [2] * 5
    counter.pending("www.example.com")


def test_the_deadline_is_servfail_with_ede() -> None:
    """Nothing in time: 22 where a shard was there, 23 where none was; the flight goes a second later."""
    for reachable, code in ((True, 22), (False, 23)):
        counter = Counter(reachable=reachable)
        counter.pending("www.example.com", use_edns=0)
        counter.take()
        counter.later(6.9)
        assert counter.door.sent == []
        counter.later(0.2)
        assert counter.last().rcode() == dns.rcode.SERVFAIL
        assert ede(counter.last()) == [code]
        counter.later(1.1)
        assert idle(counter)


def test_an_answer_after_its_deadline_is_still_kept() -> None:
    """A started flight finishes: a late answer serves the next who asks."""
    counter = Counter()
    counter.pending("www.example.com")
    items = counter.take()
    counter.later(7.5)
    counter.deliver(answer(items[0], "A 192.0.2.1"))
    assert len(counter.door.sent) == 1
    assert counter.ask("www.example.com").answer


def test_what_nobody_wants_any_more_does_not_go_up() -> None:
    """A flight that was not sent when its last waiter left is dropped."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.later(7.1)
    assert counter.take() == []
    assert idle(counter)


def test_who_joined_late_leads_a_new_flight() -> None:
    """A flight has its own deadline: when it passes, those who still have time ask again."""
    counter = Counter()
    counter.pending("www.example.com")
    (first,) = counter.take()
    counter.later(5)
    counter.pending("www.example.com", port=4001)
    counter.later(3.2)
    (second,) = counter.take()
    assert second.slot != first.slot
    assert second.source_port == 4001
    counter.deliver(answer(second, "A 192.0.2.1"))
    assert counter.last().answer


# Stale


def stale_counter(**options: object) -> Counter:
    """A desk with an answer whose TTL is over."""
    counter = Counter({"cache": {"stale_retry_s": 30}})
    counter.pending("www.example.com", port=1, **options)
    counter.serve(lambda item: answer(item, "A 192.0.2.1", ttl=10))
    counter.later(20)
    counter.door.sent.clear()
    return counter


def test_a_stale_answer_after_the_wait() -> None:
    """1.8 s without an answer: the old one with TTL 30 and EDE 3; the late answer is kept all the same."""
    counter = stale_counter()
    counter.pending("www.example.com", use_edns=0)
    (item,) = counter.take()
    counter.later(1.7)
    assert counter.door.sent == []
    counter.later(0.2)
    made = counter.last()
    assert made.answer[0].ttl == 10  # never above what it once was
    assert ede(made) == [3]
    counter.deliver(answer(item, "A 192.0.2.2"))
    assert len(counter.door.sent) == 1
    assert counter.ask("www.example.com").answer[0][0].to_text() == "192.0.2.2"


def test_stale_is_given_at_once_for_a_while() -> None:
    """After one stale answer the next come at once, until ``stale_retry_s`` is over."""
    counter = stale_counter()
    counter.pending("www.example.com")
    counter.take()
    counter.later(2)
    assert ede(counter.ask("www.example.com", use_edns=0)) == [3]
    counter.later(31)
    counter.pending("www.example.com")


def test_stale_at_once_where_nobody_can_be_asked() -> None:
    """With every shard of a name away there is nothing to wait for."""
    counter = stale_counter()
    counter.desk.flights.set_shard(0, reachable=False, now=counter.clock())
    assert ede(counter.ask("www.example.com", use_edns=0)) == [3]


def test_a_stale_answer_instead_of_servfail_but_not_of_bogus() -> None:
    """SERVFAIL from above: the old answer is better; a bogus one is never hidden; REFUSED for one slot is told."""
    counter = stale_counter()
    counter.pending("www.example.com", use_edns=0)
    counter.serve(lambda item: answer(item, rcode=2, fresh_s=5))
    assert counter.last().rcode() == 0
    assert ede(counter.last()) == [3]
    counter = stale_counter()
    counter.pending("www.example.com", use_edns=0)
    counter.serve(lambda item: answer(item, rcode=2, ede=6))
    assert counter.last().rcode() == 2
    assert ede(counter.last()) == [6]


def test_a_stale_nxdomain_says_so() -> None:
    """EDE 19 for a name that did not exist."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.serve(lambda item: answer(item, rcode=3, ttl=10, authority=["example.com SOA a. b. 1 2 3 4 5"]))
    counter.later(20)
    counter.pending("www.example.com", use_edns=0)
    counter.later(2)
    assert counter.last().rcode() == 3
    assert ede(counter.last()) == [19]


def test_stale_ends() -> None:
    """Beyond the stale window, and where stale is off, there is SERVFAIL."""
    counter = stale_counter()
    counter.later(3600)
    counter.pending("www.example.com")
    counter.later(7.1)
    assert counter.last().rcode() == 2
    counter = stale_counter()
    counter.desk.install(state({"cache": {"stale": False}}))
    counter.pending("www.example.com")
    counter.later(7.1)
    assert counter.last().rcode() == 2


# Bounds


def test_beyond_the_machines_bound_the_newest_is_shed() -> None:
    """``server.max_concurrent_queries`` wait; the next gets SERVFAIL with EDE at once."""
    counter = Counter({"server": {"max_concurrent_queries": 10}})
    for number in range(10):
        counter.pending(f"n{number}.example.com")
    made = counter.ask("n10.example.com", use_edns=0)
    assert made.rcode() == 2
    assert made.options[0].text == "overloaded"
    assert counter.desk.counters.shed.values == {"machine": 1}
    counter.serve()
    counter.pending("n10.example.com")


def test_bounds_a_name_and_a_client_prefix() -> None:
    """So many wait for one name, and of these so many from one /24 or /56."""
    counter = Counter({"server": {"waiters_per_name_max": 5, "waiters_per_prefix_max": 2}})
    outcomes = [counter.raw(ask("www.example.com"), f"10.0.0.{n}", 4000 + n) for n in range(4)]
    assert [outcome == b"" for outcome in outcomes] == [True, True, False, False]
    outcomes = [counter.raw(ask("www.example.com"), f"10.0.{n}.1", 4000 + n) for n in range(1, 6)]
    assert [outcome == b"" for outcome in outcomes] == [True, True, True, False, False]
    assert counter.desk.counters.shed.values == {"prefix": 2, "name": 2}


def test_shed_queries_get_a_stale_answer_if_there_is_one() -> None:
    """Beyond a bound the old answer is better than SERVFAIL."""
    counter = stale_counter()
    counter.desk.install(state({"server": {"waiters_per_name_max": 1}}))
    counter.pending("www.example.com")
    assert ede(counter.ask("www.example.com", use_edns=0)) == [3]


def test_what_is_left_after_a_flood() -> None:
    """Ten thousand names that nobody answers leave nothing behind when their time is over."""
    counter = Counter({"server": {"max_concurrent_queries": 1000}})
    for number in range(10_000):
        counter.raw(ask(f"n{number}.example.com", id=1), port=number)
        if number % 1000 == 0:
            counter.later(1)
        assert counter.desk.flights.waiting <= 1000
        assert counter.desk.flights.in_flight <= 1000
        if number % 100 == 0:
            counter.take()
    counter.later(10)
    assert idle(counter)


# Shards


def test_a_lost_shards_queries_go_to_the_second() -> None:
    """What a shard had is asked again elsewhere, under new slots; its late answers mean nothing."""
    counter = Counter(ring=TWO_SHARDS)
    counter.desk.flights.set_shard(1, reachable=True, now=counter.clock())
    counter.pending("www.example.com")
    (first,) = counter.take(0)
    counter.desk.flights.set_shard(0, reachable=False, now=counter.clock())
    counter.deliver(answer(first, "A 192.0.2.66"))
    assert counter.door.sent == []
    assert len(counter.serve(shard=1)) == 1
    assert counter.last().answer[0][0].to_text() == "192.0.2.1"
    assert idle(counter)


def test_queries_wait_for_a_shard_that_comes_back() -> None:
    """Alone on the ring it may come back before the deadline; then its queue is taken at once."""
    counter = Counter(reachable=False)
    counter.pending("www.example.com")
    counter.later(3)
    counter.woken.clear()
    counter.desk.flights.set_shard(0, reachable=True, now=counter.clock())
    assert counter.woken == [0]
    (item,) = counter.serve()
    assert 3890 <= item.deadline_ms <= 3900  # what is left, but for the margin of our own
    assert counter.last().answer


def test_what_waits_for_a_dead_first_goes_to_a_second_that_comes() -> None:
    """Queued for a first shard that is away, a query leaves for the second as soon as that is there."""
    counter = Counter(ring=TWO_SHARDS, reachable=False)
    counter.pending("www.example.com")
    counter.desk.flights.set_shard(1, reachable=True, now=counter.clock())
    assert len(counter.serve(shard=1)) == 1
    assert idle(counter)


def test_an_empty_ring_waits_for_a_ring() -> None:
    """Before the first ring queries wait; the ring that comes takes them to their shard."""
    counter = Counter(ring=RingTable(0, 7))
    counter.pending("www.example.com")
    counter.desk.install(state(version=Version(1, 2)))
    assert len(counter.serve()) == 1
    assert counter.last().answer


def test_wake_is_said_when_a_queue_is_no_longer_empty() -> None:
    """Once for the first query, not for each; again after the queue was taken."""
    counter = Counter()
    counter.pending("a.example.com")
    counter.pending("b.example.com")
    assert counter.woken == [0]
    assert len(counter.take()) == 2
    counter.pending("c.example.com")
    assert counter.woken == [0, 0]


def retry(item: QueryItem) -> AnswerItem:
    """The shard does not know our tables."""
    return AnswerItem(item.slot, b"", AnswerFlag.RETRY)


def test_retry_waits_for_newer_tables() -> None:
    """RETRY parks a query until a newer state is installed, then it is asked again with the new versions."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.serve(retry)
    assert counter.take() == []
    counter.desk.install(state(version=Version(1, 2)))
    (item,) = counter.serve()
    assert item.state_version == Version(1, 2).packed
    assert counter.last().answer
    assert idle(counter)


def test_retry_at_once_where_the_tables_are_newer_already() -> None:
    """A state that came while the query was up is tried at once; after three times it is SERVFAIL with EDE 14."""
    counter = Counter()
    counter.pending("www.example.com", use_edns=0)
    for number in range(2, 6):
        items = counter.take()
        assert len(items) == 1
        counter.desk.install(state(version=Version(1, number)))
        counter.deliver(retry(items[0]))
    assert counter.last().rcode() == 2
    assert ede(counter.last()) == [14]
    assert idle(counter)


def test_a_parked_query_meets_its_deadline() -> None:
    """Tables that never come do not keep a client waiting."""
    counter = Counter()
    counter.pending("www.example.com")
    counter.serve(retry)
    counter.later(7.1)
    assert counter.last().rcode() == 2
    counter.later(1.2)
    assert idle(counter)


def test_a_closed_connection_takes_its_queries_along() -> None:
    """Those who asked over it wait no more; others of the same flight do."""
    counter = Counter()
    gone, stays = object(), counter.door

    class Line:
        """Another door."""

        sent: list[bytes] = []

        def send(self, reply: bytes, peer: object, ancillary: object) -> None:
            """Never called."""
            self.sent.append(reply)

        def destination(self, ancillary: object) -> tuple[bytes, int]:
            """Somewhere."""
            return stays.destination(ancillary)

    line = Line()
    del gone
    counter.raw(ask("www.example.com"), transport=2, door=line)
    counter.raw(ask("other.example.com"), transport=2, door=line)
    counter.pending("www.example.com")
    counter.desk.flights.forget(line)
    assert len(counter.serve()) == 1
    assert line.sent == []
    assert len(counter.door.sent) == 1
    assert idle(counter)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("qqqqtsxulradw"), st.integers(0, 5)), max_size=80))
def test_after_any_story_nothing_is_left_and_nobody_is_answered_twice(story: list[tuple[str, int]]) -> None:
    """Shards that die and come, answers good, refused, lost, retried: each query has one reply, and none waits."""
    counter = Counter(ring=TWO_SHARDS)
    flights = counter.desk.flights
    asked = 0
    taken: list[QueryItem] = []
    replies = 0
    version = 1
    for step, number in story:
        if step == "q":
            asked += 1
            reply = counter.raw(ask(f"n{number}.example.com", id=asked), port=asked + 1000)
            replies += bool(reply)
        elif step == "t":
            taken += counter.take(number % 2)
        elif step in "sux" and taken:
            item = taken.pop(number % len(taken))
            kinds = {"s": AnswerFlag.SHAREABLE, "u": 0, "x": AnswerFlag.RETRY}
            counter.deliver(answer(item, "A 192.0.2.1", flags=kinds[step]))
        elif step in "lr":
            flights.set_shard(number % 2, reachable=step == "r", now=counter.clock())
        elif step == "a":
            version += 1
            counter.desk.install(state(version=Version(1, version), ring=TWO_SHARDS))
        elif step == "d":
            counter.later(number / 2)
        elif step == "w" and taken:
            taken.pop()
    assert flights.waiting == sum(len(flight.waiters) for flight in flights._by_slot.values())
    counter.later(8)
    counter.take(0)
    counter.take(1)
    counter.later(9)
    assert replies + len(counter.door.sent) == asked
    assert idle(counter)


@given(st.lists(st.floats(0, 30), max_size=60))
def test_the_wheel_turns(times: list[float]) -> None:
    """Nothing is due before its time, and nothing later than a tick after."""

    class Thing:
        """Something with a time."""

        def __init__(self, when: float) -> None:
            self.when = when
            self.tick = -1

    wheel = Wheel(0.0)
    for when in times:
        wheel.add(Thing(when), when)
    now, seen = 0.0, 0
    while now < 31:
        for thing in wheel.due(now):
            assert isinstance(thing, Thing)
            seen += 1
            assert thing.when - 1e-9 <= now <= thing.when + 3 * TICK_S
        now += TICK_S
    assert seen == len(times)
    assert not wheel
    wheel.remove(Thing(1.0))


@pytest.mark.parametrize("count", [1, 1024, 1025, 3000])
def test_batches_are_bounded(count: int) -> None:
    """More than a batch holds stays queued, in order."""
    counter = Counter()
    for number in range(count):
        counter.raw(ask(f"n{number}.example.com", id=1), port=number)
    taken = []
    while items := counter.take():
        assert len(items) <= 1024
        taken += items
    assert [item.slot for item in taken] == list(range(1, count + 1))
