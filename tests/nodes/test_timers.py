"""Wake-ups by the thousand come when they are due, once, and whoever was cancelled stays away."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.nodes.timers import Clockwork, Timers


@given(st.lists(st.floats(0, 50), max_size=60))
def test_timers_are_never_early_and_at_most_a_bucket_late(dues: list[float]) -> None:
    """Each thing comes out exactly once, not before it is due, and within 20 ms after."""
    timers: Timers[float] = Timers()
    for due in dues:
        timers.add(due, due)
    seen: list[float] = []
    while (at := timers.next()) is not None:
        for due in timers.take(at):
            assert due <= at <= due + 0.02 + 1e-9
            seen.append(due)
    assert sorted(seen) == sorted(dues)
    assert not timers


async def test_calls_come_in_their_order_and_never_early() -> None:
    """Later ones that were asked for first do not hold up sooner ones."""
    clockwork = Clockwork(asyncio.get_running_loop(), time.monotonic)
    came: list[tuple[str, float]] = []
    done = asyncio.Event()
    began = time.monotonic()

    def last() -> None:
        came.append(("late", time.monotonic() - began))
        done.set()

    clockwork.call_later(0.12, last)
    clockwork.call_later(0.03, lambda: came.append(("soon", time.monotonic() - began)))
    gone = clockwork.call_later(0.01, lambda: came.append(("gone", 0.0)))
    gone.cancel()
    await asyncio.wait_for(done.wait(), 5)
    assert [name for name, _ in came] == ["soon", "late"]
    assert came[0][1] >= 0.03
    assert came[1][1] >= 0.12


async def test_one_that_raises_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    """The log has it, the others are called, and so are those that come after."""
    clockwork = Clockwork(asyncio.get_running_loop(), time.monotonic)
    done = asyncio.Event()

    def broken() -> None:
        raise ZeroDivisionError

    clockwork.call_later(0.0, broken)
    clockwork.call_later(0.0, lambda: clockwork.call_later(0.01, done.set) and None)
    await asyncio.wait_for(done.wait(), 5)
    assert "timer_failed" in caplog.text
