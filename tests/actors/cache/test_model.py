"""A model of the shard under random histories.

Invariants, checked after every step:

- every waiter is answered exactly once, and at the latest at its deadline;
- at most one started flight a key;
- nothing is served as fresh beyond the TTL with which it came, and no flushed data is served at all;
- the store stays within its bytes.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from raydns.actors.cache.flights import State
from raydns.actors.cache.store import OVERHEAD
from raydns.schemas.batch import AnswerFlag, Outcome, QueryFlag, stamps

from .world import World, failure, negative, positive, rcode_of, ttls

NAMES = [f"n{n}.example." for n in range(6)]
BYTES_MAX = 4 * (OVERHEAD + 200)
DEADLINE_S = 7.0


class ShardMachine(RuleBasedStateMachine):
    """Random queries, answers, losses, flushes and time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(upstreams=2, bytes_max=BYTES_MAX, waiters_max=5, in_flight_max=4)
        self.asked: dict[int, tuple[str, float]] = {}
        self.checked: set[int] = set()
        self.serial = 0
        self.expiry: dict[tuple[str, int], float] = {}  # (name, last octet) → when it is no longer fresh

    @rule(name=st.sampled_from(NAMES), flags=st.sampled_from([0, 0, 0, QueryFlag.LOOKUP_ONLY, QueryFlag.PREFETCH]))
    def ask(self, name: str, flags: int) -> None:
        slot = self.world.ask(name, flags=int(flags))
        self.asked[slot] = (name, self.world.now)

    @rule(which=st.integers(0, 7), kind=st.sampled_from("ppppnfrlx"), ttl=st.integers(0, 40))
    def answer(self, which: int, kind: str, ttl: int) -> None:
        upstreams = [u for u in self.world.upstreams if u.in_flight]
        if not upstreams:
            return
        upstream = upstreams[which % len(upstreams)]
        slot = upstream.open_slots[which % upstream.in_flight]
        asked = next(q for q in upstream.asked if q.slot == slot)
        name = next(n for n in NAMES if n.split(".")[0].encode() == asked.message[13:15])
        if kind == "p":
            self.serial = self.serial % 250 + 1
            self.expiry[name, self.serial] = self.world.now + ttl
            upstream.answer(positive(name, ttl, self.serial), slot)
        elif kind == "n":
            upstream.answer(negative(name, ttl, ttl), slot)
        elif kind == "f":
            upstream.answer(failure(name), slot)
        elif kind == "r":
            upstream.answer(failure(name, 5, flags=0), slot)
        elif kind == "l":
            upstream.answer(failure(name, flags=(AnswerFlag.SHAREABLE | AnswerFlag.LOCAL_FAILURE)), slot)
        else:
            upstream.lose()

    @rule(seconds=st.sampled_from([0.01, 0.5, 1.9, 5.0, 20.0]))
    def wait(self, seconds: float) -> None:
        self.world.step(seconds)

    @rule(which=st.integers(0, 1), up=st.booleans())
    def connect(self, which: int, up: bool) -> None:
        upstream = self.world.upstreams[which]
        if up:
            upstream.connected = True
            self.world.core.reachable()
        elif upstream.connected:
            upstream.lose()

    @rule(name=st.sampled_from(NAMES))
    def flush(self, name: str) -> None:
        self.world.flush(name)
        for key in [k for k in self.expiry if k[0] == name]:
            self.expiry[key] = -1.0  # may still reach those who waited for it, never be served from the store

    @invariant()
    def every_waiter_is_answered_once_and_in_time(self) -> None:
        for slot, (_, since) in self.asked.items():
            count = len(self.world.answers[slot])
            assert count <= 1
            if count == 0:
                assert self.world.now < since + DEADLINE_S

    @invariant()
    def nothing_expired_is_fresh(self) -> None:
        for slot, (name, _) in self.asked.items():
            if slot in self.checked or not self.world.answers[slot]:
                continue
            self.checked.add(slot)
            answer = self.world.got(slot)
            outcome = stamps(answer.rooms)[0].outcome
            if rcode_of(answer) or outcome not in {Outcome.HIT, Outcome.STALE} or len(ttls(answer)) != 1:
                continue
            end = self.expiry.get((name, answer.message[-1]), 1e12)
            assert end >= 0, "flushed data was served"
            if outcome == Outcome.HIT:
                assert self.world.now + answer.fresh_s <= end
                assert self.world.now + ttls(answer)[0] <= end
            else:
                assert answer.flags & AnswerFlag.STALE
                assert ttls(answer) == [30]

    @invariant()
    def one_flight_a_key(self) -> None:
        flights = [f for f in self.world.core.state.flights.all() if f.state == State.STARTED]
        joinable = [f.key for f in flights if self.world.core.state.flights.get(f.key) is f]
        assert len(joinable) == len(set(joinable))
        assert self.world.core.state.flights.started == len(flights)
        live = sum(f.live for f in self.world.core.state.flights.all())
        assert live == self.world.core.state.flights.waiters

    @invariant()
    def the_store_is_bounded(self) -> None:
        assert self.world.core.state.store.size <= BYTES_MAX

    def teardown(self) -> None:
        self.world.step(DEADLINE_S + 1)
        assert all(len(self.world.answers[slot]) == 1 for slot in self.asked)
        assert self.world.core.state.flights.waiters == 0


TestShard = ShardMachine.TestCase
TestShard.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
