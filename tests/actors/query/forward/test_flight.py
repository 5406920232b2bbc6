"""A flight on a virtual clock: attempts, pauses, hedges and ends, with scripted exchanges."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.actors.query.budget import Budget, BudgetExhausted, DeadlinePassed
from raydns.actors.query.forward.faults import BadReply, Fault, UpstreamFailed
from raydns.actors.query.forward.flight import Flight, Policy, zone_of
from raydns.actors.query.forward.message import Question
from raydns.actors.query.forward.reply import Reply
from raydns.actors.query.forward.udp import Address
from raydns.actors.query.forward.upstream import Upstream
from raydns.actors.query.forward.world import World
from raydns.schemas.config.forward import BreakerConfig
from tests.actors.query.kit import VirtualTime, name

GOOD = Reply(b"", b"", 0, 60, b"")
SILENT = None


@dataclass
class FakeServer:
    """Answers after a delay, or never."""

    state: Upstream
    delay: float
    outcome: Reply | Fault | None


@dataclass(eq=False)
class FakeExchange:
    """An exchange of the script."""

    wanted: bool = True


class Stage:
    """A flight among fake servers."""

    def __init__(
        self, *servers: tuple[float, Reply | Fault | None], timeout_s: float = 5.0, budget: Budget | None = None
    ) -> None:
        self.time = VirtualTime()
        self.asked: list[tuple[float, int]] = []
        self.results: list[Reply | Exception] = []
        self.exchanges: list[FakeExchange] = []
        self.servers = [
            FakeServer(Upstream(Address("127.0.0.1", port), BreakerConfig()), *script)
            for port, script in enumerate(servers, 1)
        ]
        self.budget = budget or Budget(128, 100_000, 11, self.time.now + 100)
        self.flight = StagedFlight(self, timeout_s)
        self.flight.start()

    def run(self, seconds: float = 10.0) -> Reply | Exception:
        """The result; there is exactly one."""
        self.time.advance(seconds)
        assert len(self.results) == 1
        return self.results[0]


class StagedFlight(Flight[FakeServer]):
    """Its exchanges go as the stage's script says."""

    def __init__(self, stage: Stage, timeout_s: float) -> None:
        time = stage.time
        nobody = cast("asyncio.AbstractEventLoop", None)  # a flight uses neither loop nor secure randomness
        world = World(nobody, time.clock, time.clock, time.call_later, int, bytes, lambda: 0.99)
        policy = Policy(4, 0.05, timeout_s)
        super().__init__(Question(name("a.example."), 1), stage.servers, stage.budget, policy, world)
        self.stage = stage

    def _launch(self, server: FakeServer) -> None:
        stage, state = self.stage, server.state
        exchange = FakeExchange()
        stage.exchanges.append(exchange)
        self.launched(exchange, state)
        stage.asked.append((round(stage.time.now - 1000.0, 3), state.address.port))
        if server.outcome is not None:
            outcome = server.outcome if isinstance(server.outcome, Reply) else BadReply(server.outcome)
            stage.time.call_later(server.delay, lambda: self.result(exchange, state, outcome))

    def _landed(self, result: Reply | Exception) -> None:
        self.stage.results.append(result)


def test_one_answer_is_one_exchange() -> None:
    """The usual case."""
    stage = Stage((0.01, GOOD), (0.01, GOOD))
    assert stage.run() is GOOD
    assert len(stage.asked) == 1


def test_servfail_from_one_asks_another_and_nobody_twice() -> None:
    """Each server is asked once for a question that it fails; the failure is told as the upstream's."""
    stage = Stage((0.01, Fault.SERVFAIL), (0.01, Fault.REFUSED))
    error = stage.run()
    assert isinstance(error, UpstreamFailed)
    assert not error.ours
    assert sorted(port for _, port in stage.asked) == [1, 2]
    assert "127.0.0.1:1" in error.where
    assert "127.0.0.1:2" in error.where


def test_silence_is_hedged() -> None:
    """A second server is asked while the first is still waited for, and the first answer wins."""
    stage = Stage((0.0, SILENT), (0.01, GOOD))
    assert stage.run() is GOOD
    assert stage.asked[0] == (0.0, 1)
    assert 0.39 < stage.asked[1][0] < 0.6
    assert not stage.exchanges[0].wanted


def test_a_late_answer_is_still_an_answer() -> None:
    """The first server's answer counts although others were asked meanwhile."""
    stage = Stage((2.0, GOOD), (0.0, SILENT))
    assert stage.run() is GOOD
    assert len(stage.asked) >= 2


def test_pauses_double() -> None:
    """A server that refuses connections is tried four times, each pause twice the one before, and then given up."""
    stage = Stage((0.0, Fault.UNREACHABLE))
    error = stage.run()
    assert isinstance(error, UpstreamFailed)
    times = [at for at, _ in stage.asked]
    pauses = [b - a for a, b in pairwise(times)]
    assert len(times) == 4
    assert pauses == sorted(pauses)
    assert 0.02 < pauses[0] < 0.06
    assert pauses[2] > 3 * pauses[0]


def test_the_time_is_the_end() -> None:
    """Five seconds of silence end in a time-out that may be remembered as the upstreams' failure."""
    stage = Stage((0.0, SILENT), (0.0, SILENT))
    error = stage.run()
    assert isinstance(error, UpstreamFailed)
    assert error.fault is Fault.TIMEOUT
    assert not error.ours
    assert len(stage.asked) == 4


def test_the_askers_deadline_is_our_own_failure() -> None:
    """If the asker's time ends first, the failure is nobody else's and is never cached."""
    time = VirtualTime()
    stage = Stage((0.0, SILENT), budget=Budget(128, 100_000, 11, time.now + 1.0))
    assert isinstance(stage.run(), DeadlinePassed)


def test_the_budget_is_the_end() -> None:
    """With two exchanges left there are two."""
    time = VirtualTime()
    stage = Stage((0.0, Fault.UNREACHABLE), budget=Budget(2, 100_000, 11, time.now + 50))
    result = stage.run()
    assert isinstance(result, BudgetExhausted)
    assert not isinstance(result, DeadlinePassed)
    assert len(stage.asked) == 2


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 8),
            st.sampled_from([GOOD, SILENT, Fault.SERVFAIL, Fault.UNREACHABLE, Fault.MALFORMED, Fault.BROKEN_CHAIN]),
        ),
        min_size=1,
        max_size=4,
    ),
    st.floats(1, 30),
)
def test_every_flight_ends_once_and_in_time(
    servers: list[tuple[float, Reply | Fault | None]], timeout_s: float
) -> None:
    """Whatever servers do: one result, at most four exchanges, in time; an answer if the best one would give it."""
    stage = Stage(*servers, timeout_s=timeout_s)
    result = stage.run(timeout_s + 0.001)
    assert len(stage.asked) <= 4
    assert stage.budget.queries_left == 128 - len(stage.asked)
    if all(outcome is GOOD and delay < 0.9 for delay, outcome in servers):
        assert result is GOOD


@pytest.mark.parametrize(
    ("text", "zone"),
    [
        ("a.b.example.com.", "example.com."),
        ("a.example.co.uk.", "example.co.uk."),
        ("corp.", "corp."),
        (".", "."),
        ("a.b.c.corp.", "c.corp."),
        ("x.de.", "x.de."),
    ],
)
def test_cost_is_put_on_a_zone(text: str, zone: str) -> None:
    """Random names below one zone share its share."""
    assert zone_of(name(text)) == name(zone)
