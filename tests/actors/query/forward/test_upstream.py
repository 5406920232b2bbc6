"""Choice among upstreams and what their times mean, without clock or sockets."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from raydns.actors.query.forward.breaker import State
from raydns.actors.query.forward.faults import Fault
from raydns.actors.query.forward.udp import Address
from raydns.actors.query.forward.upstream import Upstream, choose
from raydns.schemas.config.forward import BreakerConfig


def upstream(port: int, rtt: float = 0.0) -> Upstream:
    """An upstream, with ten answers of that time behind it."""
    made = Upstream(Address("127.0.0.1", port), BreakerConfig())
    for _ in range(10 if rtt else 0):
        made.answered(b"n", 0.0, rtt)
    return made


def never() -> float:
    """Chance that explores nobody."""
    return 0.99


class Server(NamedTuple):
    """What a flight chooses from."""

    state: Upstream


def pick(
    upstreams: list[Upstream], tried: list[Upstream], excluded: list[Upstream], now: float, random: Callable[[], float]
) -> Upstream | None:
    """Whom ``choose`` takes of servers in these states."""
    chosen = choose([Server(state) for state in upstreams], tried, excluded, now, random)
    return None if chosen is None else chosen.state


def break_it(target: Upstream, now: float = 0.0) -> None:
    """Opens its breaker."""
    for n in range(5):
        target.failed(Fault.TIMEOUT, bytes((n,)), now, now)
    assert target.breaker.state is State.OPEN


def test_the_fastest_is_asked_and_others_now_and_then() -> None:
    """The best by time is asked, except for a twentieth of the questions that explore."""
    fast, slow = upstream(1, 0.01), upstream(2, 0.1)
    rng = random.Random(7)
    picks = [pick([slow, fast], [], [], 0.0, rng.random) for _ in range(2000)]
    assert 0.02 < picks.count(slow) / 2000 < 0.08


def test_a_retry_goes_to_somebody_else() -> None:
    """Who was tried comes last, who is excluded never."""
    a, b = upstream(1, 0.01), upstream(2, 0.1)
    assert pick([a, b], [a], [], 0.0, never) is b
    assert pick([a, b], [a, b], [], 0.0, never) is a
    assert pick([a, b], [a], [b], 0.0, never) is a
    assert pick([a, b], [], [a, b], 0.0, never) is None


def test_an_open_breaker_is_passed_over_and_the_least_bad_used() -> None:
    """With one open the other is asked; with all open the one that opens first is."""
    a, b = upstream(1, 0.01), upstream(2, 0.1)
    break_it(a)
    assert pick([a, b], [], [], 1.0, never) is b
    break_it(b, 1.0)
    assert pick([a, b], [], [], 2.0, never) is a
    assert pick([a], [], [], 2.0, never) is a


def test_one_in_ten_probes_when_the_time_is_over() -> None:
    """After five seconds the first question and every tenth go to the one that was open."""
    a, b = upstream(1, 0.01), upstream(2, 0.1)
    break_it(a)
    picks = [pick([a, b], [], [], 6.0, never) for _ in range(20)]
    assert [p is a for p in picks] == [n % 10 == 0 for n in range(20)]
    a.answered(b"n", 6.0, 6.01)
    assert a.breaker.state is State.CLOSED


def test_a_late_one_falls_back_and_recovers() -> None:
    """A time-out doubles what is thought of its time; answers bring it back."""
    a, b = upstream(1, 0.01), upstream(2, 0.015)
    a.late()
    assert pick([a, b], [], [], 0.0, never) is b
    for _ in range(10):
        a.answered(b"n", 0.0, 0.01)
    assert pick([a, b], [], [], 0.0, never) is a


def test_three_times_the_usual_time_is_slow() -> None:
    """A server that suddenly takes a second, over several names, is opened; one that always did is not."""
    a, always = upstream(1, 0.02), upstream(2, 1.0)
    for n in range(5):
        a.answered(bytes((n,)), 0.0, 1.0)
        always.answered(bytes((n,)), 0.0, 1.1)
    assert a.breaker.state is State.OPEN
    assert always.breaker.state is State.CLOSED


def test_cold_caches_are_not_slow() -> None:
    """A resolver that answers in a millisecond may take 250 for names that it must look up."""
    a = upstream(1, 0.001)
    for n in range(50):
        a.answered(bytes((n,)), 0.0, 0.25)
    assert a.breaker.state is State.CLOSED


def test_waiting_times_are_bounded() -> None:
    """However fast or slow a server is, a second one is asked between 150 ms and a second later."""
    for rtt in (0.0001, 0.01, 0.5, 10.0):
        a = upstream(1, rtt)
        assert 0.15 <= a.hedge_after_s <= 1.0
        assert 1.0 <= a.patience_s <= 2.5


def test_faults_that_a_stranger_can_provoke_do_not_count() -> None:
    """A loop of CNAMEs or too many records are the name's fault."""
    a = upstream(1, 0.01)
    for n in range(50):
        a.failed(Fault.BROKEN_CHAIN, bytes((n,)), 0.0, 0.0)
        a.failed(Fault.TOO_MANY_RECORDS, bytes((n,)), 0.0, 0.0)
    assert a.breaker.state is State.CLOSED
