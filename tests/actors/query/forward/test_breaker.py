"""The circuit breaker on a virtual clock: what opens it, what does not, and how it comes back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.actors.query.forward.breaker import Breaker, State
from raydns.schemas.config.forward import BreakerConfig

NAMES = [bytes((i,)) for i in range(10)]


def opened(now: float = 100.0) -> Breaker:
    """A breaker that five failures have opened at ``now``."""
    breaker = Breaker(BreakerConfig())
    for n in range(5):
        breaker.failure(NAMES[n], now, now)
    assert breaker.state is State.OPEN
    return breaker


def test_five_failures_over_several_names_open_it() -> None:
    """Four do not, the fifth does; for 5 s nothing is let through."""
    breaker = Breaker(BreakerConfig())
    for n in range(4):
        breaker.failure(NAMES[n], 1.0, 1.0)
    assert breaker.state is State.CLOSED
    breaker.failure(NAMES[4], 1.0, 1.0)
    assert breaker.state is State.OPEN
    assert not breaker.allows(5.9)
    assert breaker.allows(6.0)


def test_one_broken_name_never_opens_it() -> None:
    """A hundred failures of one name say something about the name."""
    breaker = Breaker(BreakerConfig())
    for _ in range(100):
        breaker.failure(b"a", 1.0, 1.0)
        breaker.failure(b"b", 1.0, 1.0)
    assert breaker.state is State.CLOSED
    breaker.failure(b"c", 1.0, 1.0)
    assert breaker.state is State.OPEN


def test_an_answer_breaks_the_row() -> None:
    """Failures count in a row only."""
    breaker = Breaker(BreakerConfig())
    for n in range(40):
        breaker.failure(NAMES[n % 4], 1.0, 1.0)
        if n % 4 == 3:
            breaker.success(b"good", 1.0, 1.0)
    assert breaker.state is State.CLOSED


def test_slow_answers_in_a_row_open_it() -> None:
    """As many slow answers as failures open it; a quick one in between breaks the row."""
    breaker = Breaker(BreakerConfig())
    for n in range(4):
        breaker.success(NAMES[n], 1.0, 1.0, slow=True)
    breaker.success(b"q", 1.0, 1.0)
    for n in range(4):
        breaker.success(NAMES[n], 1.0, 1.0, slow=True)
    assert breaker.state is State.CLOSED
    breaker.success(NAMES[5], 1.0, 1.0, slow=True)
    assert breaker.state is State.OPEN


def test_one_query_in_ten_probes_and_success_closes() -> None:
    """Half-open, the first and every tenth pass; an answer closes it and resets the open time."""
    breaker = opened()
    assert [breaker.allows(105.0) for _ in range(21)] == [n % 10 == 0 for n in range(21)]
    assert breaker.state is State.HALF_OPEN
    breaker.success(b"a", 105.0, 105.1)
    assert breaker.state is State.CLOSED
    assert breaker.open_s == 5.0


def test_failed_probes_double_the_time_up_to_a_minute() -> None:
    """5, 10, 20, 40, 60, 60 seconds."""
    breaker = opened(0.0)
    now, waits = 0.0, []
    for _ in range(6):
        waits.append(breaker.open_until - now)
        now = breaker.open_until
        assert breaker.allows(now)
        breaker.failure(b"p", now, now)
    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0]


def test_late_news_is_no_news() -> None:
    """What began before the breaker opened neither closes it nor lengthens its time."""
    breaker = opened(100.0)
    breaker.success(b"a", 99.0, 101.0)
    breaker.failure(b"a", 99.0, 101.0)
    assert breaker.state is State.OPEN
    assert breaker.open_until == 105.0
    breaker.allows(106.0)
    breaker.failure(b"a", 99.0, 106.5)
    assert breaker.state is State.HALF_OPEN


def test_servfail_only_asks_for_a_probe() -> None:
    """SERVFAIL and REFUSED in a row want a probe; only a bad probe opens, a good one starts the row anew."""
    breaker = Breaker(BreakerConfig())
    for n in range(5):
        breaker.bad_answer(NAMES[n], 1.0, 1.0)
    assert (breaker.state, breaker.wants_probe) == (State.CLOSED, True)
    breaker.probe_started(1.0)
    breaker.probe_done(1.1, good=True)
    assert breaker.state is State.CLOSED
    for n in range(5):
        breaker.bad_answer(NAMES[n], 3.0, 3.0)
    breaker.probe_started(3.0)
    breaker.probe_done(3.1, good=False)
    assert breaker.state is State.OPEN


def test_servfail_counts_for_a_probing_query() -> None:
    """Half-open, a SERVFAIL is a failed probe."""
    breaker = opened(0.0)
    assert breaker.allows(5.0)
    breaker.bad_answer(b"a", 5.0, 5.1)
    assert breaker.state is State.OPEN


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["ok", "slow", "fail", "bad", "ask", "wait"]), st.integers(0, 9)), max_size=80)
)
def test_it_is_never_closed_to_all_for_long(events: list[tuple[str, int]]) -> None:
    """Whatever happens: open times stay within bounds, and once over a query is let through within ten."""
    breaker, now = Breaker(BreakerConfig()), 0.0
    for kind, n in events:
        now += 0.01
        if kind == "ok":
            breaker.success(NAMES[n], now, now)
        elif kind == "slow":
            breaker.success(NAMES[n], now, now, slow=True)
        elif kind == "fail":
            breaker.failure(NAMES[n], now, now)
        elif kind == "bad":
            breaker.bad_answer(NAMES[n], now, now)
        elif kind == "ask":
            breaker.allows(now)
        else:
            now += n
        assert 5.0 <= breaker.open_s <= 60.0
        assert breaker.open_until - now <= 60.0
    later = max(now, breaker.open_until)
    assert any(breaker.allows(later) for _ in range(10))
