"""The end of a flight: its answer is judged, kept or remembered, and given to those who wait; or it failed."""

from __future__ import annotations

from collections.abc import Callable

from raydns.schemas import dns
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryFlag
from raydns.schemas.errors import MessageError

from .answers import Kind, Verdict, judge
from .flights import Flight, State, Waiter
from .state import ShardState

# One entry may take an eighth of a shard: a 64 KB answer in the smallest shard would push out all others.
ENTRY_SHARE = 8

Launch = Callable[[Flight, float], None]


class Arrivals:
    """Ends flights; every waiter of one that ends has had its answer."""

    def __init__(self, state: ShardState) -> None:
        self._state = state

    def land(self, flight: Flight, answer: AnswerItem, now: float, launch: Launch) -> None:
        """An answer came.

        Args:
            flight: started, not over.
            answer: of a query actor, or of the shard that owns the name.
            now: the shard's clock.
            launch: sends the flight up again, for the next waiter.
        """
        state = self._state
        try:
            verdict = judge(answer, flight.question, state.settings)
        except MessageError as error:
            state.metrics.dropped.inc("malformed")
            self.fail(flight, dns.Ede.INVALID_DATA, "a malformed answer", now, detail=error.message)
            return
        if answer.flags & AnswerFlag.LOCAL_FAILURE and self._serve_old(flight, now):
            return
        if not answer.flags & AnswerFlag.SHAREABLE:
            self._this_slot_only(flight, verdict, answer, now)
            self._next_leads(flight, now, launch)
            return
        if verdict.kind == Kind.FAILURE and self._serve_old(flight, now):
            return
        down = self._settled(flight, verdict, answer, now)
        outcome = Outcome.FAILED if verdict.kind == Kind.FAILURE else Outcome.MISS
        leader = flight.leader()
        if flight.live > 1:
            for waiter in [w for w in flight.unanswered() if w is not leader]:
                state.replies.send(waiter, _for_waiter(waiter, down), Outcome.JOINED if waiter.joined else outcome, now)
                state.flights.answered(waiter)
        if leader is not None:  # last, since it gets the answer itself and not a copy
            down.slot = leader.slot
            if leader.joined:
                down.rooms = b""
            state.replies.send(leader, down, Outcome.JOINED if leader.joined else outcome, now)
            state.flights.answered(leader)
        self.end(flight, State.LANDED, "failure" if verdict.kind == Kind.FAILURE else "answer")

    def pass_on(self, flight: Flight, answer: AnswerItem, now: float) -> bool:
        """An answer of a transfer, NOTIFY or UPDATE: as it is, to its one waiter; ``True`` if more will come."""
        state = self._state
        waiter = flight.leader()
        more = bool(answer.flags & AnswerFlag.MORE)
        if waiter is not None:
            answer.slot = waiter.slot
            answer.ring_version = state.ring.version
            state.replies.send(waiter, answer, Outcome.MISS, now)
            if not more:
                state.flights.answered(waiter)
        if not more:
            self.end(flight, State.LANDED, "passed")
        return more

    def fail(self, flight: Flight, ede: int, text: str, now: float, *, detail: str = "") -> None:
        """A failure of our own making; it is remembered nowhere, and never replaces a usable entry.

        Args:
            flight: not over.
            ede: Extended DNS Error code.
            text: why; also the label in the metrics, so one of a few.
            now: the shard's clock.
            detail: told to the client beside it.
        """
        if self._serve_old(flight, now):
            return
        state = self._state
        for waiter in list(flight.unanswered()):
            state.replies.servfail(waiter, flight.question, ede, text, now, detail=detail)
            state.flights.answered(waiter)
        self.end(flight, State.LANDED, "local_failure")

    def end(self, flight: Flight, state: State, how: str) -> None:
        """The flight is over."""
        self._state.flights.end(flight, state)
        self._state.metrics.flights.inc(how)

    def _serve_old(self, flight: Flight, now: float) -> bool:
        """RFC 8767 section 5: what is held is served instead of a failure, and a fresh one tried again later."""
        state = self._state
        entry = state.usable(flight, now)
        if entry is None:
            return False
        entry.retry_at = now + state.settings.stale_retry
        state.give_old(flight, entry, now)
        self.end(flight, State.LANDED, "stale")
        return True

    def _this_slot_only(self, flight: Flight, verdict: Verdict, answer: AnswerItem, now: float) -> None:
        """A refusal or a rate limit is the leader's alone."""
        leader = flight.leader()
        if leader is None:
            if flight.entry is not None:
                flight.entry.hits = 0  # a prefetch was refused: not tried again at the very next hit
            return
        refused = verdict.message[3] & dns.RCODE_MASK == dns.Rcode.REFUSED
        down = _below(verdict, answer, answer.began or flight.began, self._state.ring.version)
        self._state.replies.send(leader, _for_waiter(leader, down), Outcome.REFUSED if refused else Outcome.MISS, now)
        self._state.flights.answered(leader)

    def _next_leads(self, flight: Flight, now: float, launch: Launch) -> None:
        following = flight.leader()
        if following is None or following.item is None:
            self.end(flight, State.LANDED, "refused")
            return
        following.joined = False
        flight.begin_anew(following.item)
        launch(flight, now)

    def _settled(self, flight: Flight, verdict: Verdict, answer: AnswerItem, now: float) -> AnswerItem:
        """The answer as those below get it, after this shard has kept what is to be kept."""
        state = self._state
        began = min(flight.began, answer.began) if answer.began else flight.began
        down = _below(verdict, answer, began, state.ring.version)
        if flight.relay_to >= 0:
            # The owner has decided, keeps it, and told what is left.
            down.fresh_s, down.stale_s, down.began = answer.fresh_s, answer.stale_s, answer.began
        elif verdict.kind == Kind.FAILURE:
            down.fresh_s = self._remember(flight, down, now)
        elif verdict.ttl:
            down.fresh_s = verdict.ttl
            down.stale_s = min(answer.stale_s, state.settings.stale_max)
            self._keep(flight, verdict, down, now)
        return down

    def _keep(self, flight: Flight, verdict: Verdict, down: AnswerItem, now: float) -> None:
        state = self._state
        if not state.settings.enabled or down.flags & AnswerFlag.STALE or flight.item.flags & QueryFlag.APEX:
            return
        if state.flushed(flight.name, down.began):
            state.metrics.dropped.inc("flushed")
            return
        if (len(down.message) + len(down.layout) + len(down.facts)) * ENTRY_SHARE > state.settings.bytes_max:
            state.metrics.dropped.inc("too_large")
            return
        entry = state.store.put(flight.key)
        entry.message, entry.layout, entry.facts = down.message, down.layout, down.facts
        entry.flags = down.flags & (AnswerFlag.SHAREABLE | AnswerFlag.SECURE)
        entry.scope, entry.ede, entry.ede_text = down.scope, down.ede, down.ede_text
        entry.ttl, entry.began = verdict.ttl, down.began
        entry.negative = verdict.kind == Kind.NEGATIVE
        entry.fresh_until = now + verdict.ttl
        entry.stale_until = entry.fresh_until + down.stale_s
        state.store.settle(entry, now)
        state.failures.forget(flight.key)

    def _remember(self, flight: Flight, down: AnswerItem, now: float) -> int:
        """RFC 9520: for how many seconds the failure is now the answer."""
        state = self._state
        settings = state.settings
        if not settings.enabled or flight.item.flags & QueryFlag.APEX or state.flushed(flight.name, down.began):
            return 0
        failure = state.failures.add(flight.key, now, settings.failure_ttl, settings.failure_ttl_max)
        failure.rcode = down.message[3] & dns.RCODE_MASK
        failure.ede, failure.ede_text, failure.began = down.ede, down.ede_text, down.began
        return int(failure.until - now)


def _below(verdict: Verdict, answer: AnswerItem, began: int, ring_version: int) -> AnswerItem:
    return AnswerItem(
        0,
        verdict.message,
        answer.flags & (0xFFFF ^ AnswerFlag.TRACED),
        answer.scope,
        0,
        0,
        began,
        ring_version,
        verdict.layout,
        answer.facts,
        answer.rooms,
        answer.ede,
        answer.ede_text,
    )


def _for_waiter(waiter: Waiter, down: AnswerItem) -> AnswerItem:
    return AnswerItem(
        waiter.slot,
        down.message,
        down.flags,
        down.scope,
        down.fresh_s,
        down.stale_s,
        down.began,
        down.ring_version,
        down.layout,
        down.facts,
        b"" if waiter.joined else down.rooms,  # the rooms above were the leader's
        down.ede,
        down.ede_text,
    )
