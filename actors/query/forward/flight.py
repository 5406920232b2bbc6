"""One question on its way through the upstreams of a rule: whom to ask when, and when to stop. Without IO.

An attempt that fails is followed by another after a pause that doubles, with jitter; one that takes longer than its
server usually does is joined by another (a hedge), and the first answer wins. A server whose answer to this question
is known and no use (SERVFAIL, REFUSED, a broken chain) is not asked it again. The flight ends with an answer, with
its attempts, with its time or with its budget.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from raydns.actors.query.budget import Budget, BudgetExhausted, DeadlinePassed
from raydns.schemas import dns

from .faults import BadReply, Fault, UpstreamFailed
from .message import Question
from .reply import Reply
from .upstream import HasState, Upstream, choose
from .world import Timer, World

_NEVER: Final = float("inf")
_RETRYABLE: Final = frozenset(
    {
        Fault.TIMEOUT,
        Fault.UNREACHABLE,
        Fault.WRONG_ID,
        Fault.WRONG_QUESTION,
        Fault.WRONG_CASE,
        Fault.MALFORMED,
        Fault.BUSY,
    }
)
# Which of several faults explains a failure best: what a server said before what it did not say.
_TELLING: Final = (Fault.BUSY, Fault.TIMEOUT, Fault.UNREACHABLE)


class AttemptedExchange(Protocol):
    """What a flight knows of an exchange."""

    wanted: bool


S = TypeVar("S", bound=HasState)


class Policy(msgspec.Struct, frozen=True, gc=False):
    """How persistent a flight is (section ``forward``)."""

    attempts: int = 4
    backoff_s: float = 0.05
    timeout_s: float = 5.0


class Event(NamedTuple):
    """Something that happened on the way, for the span of a traced query."""

    name: str  # "retry", "hedge", or a fault
    at: float  # monotonic seconds
    upstream: str


class Flight(ABC, Generic[S]):
    """See above. Its methods are called from the event loop.

    A subclass says how an exchange is started (``_launch``) and who hears of the end (``_landed``, called once).
    Methods and not callables that are handed in: a flight that holds a function which holds the flight is garbage
    that only the collector finds. With 1,200 such flights a second it stopped a query actor for 200 ms every 2 s.
    """

    __slots__ = (
        "_excluded",
        "_fault",
        "_ours",
        "_outstanding",
        "_policy",
        "_retry_at",
        "_servers",
        "_timer",
        "_tried",
        "answered_by",
        "attempts",
        "budget",
        "ends_at",
        "events",
        "finished",
        "question",
        "world",
    )

    def __init__(
        self,
        question: Question,
        servers: Sequence[S],
        budget: Budget,
        policy: Policy,
        world: World,
    ) -> None:
        ends_at = world.clock() + policy.timeout_s
        self.question = question
        self.budget = budget
        self.world = world
        self._ours = budget.ends_at < ends_at  # whether the asker's time ends before the upstreams' time
        self.ends_at = budget.ends_at if self._ours else ends_at
        self.attempts = 0
        self.events: list[Event] = []  # at most two an attempt
        self.finished = False
        self.answered_by = ""
        self._servers = servers
        self._policy = policy
        self._tried: list[Upstream] = []
        self._excluded: list[Upstream] = []
        self._outstanding: dict[AttemptedExchange, Upstream] = {}
        self._fault: BadReply | None = None
        self._retry_at = _NEVER
        self._timer: Timer | None = None

    @abstractmethod
    def _launch(self, server: S) -> None:
        """Starts an exchange with a server; tells ``launched`` before."""

    @abstractmethod
    def _landed(self, result: Reply | Exception) -> None:
        """It is over."""

    def start(self) -> None:
        """Makes the first attempt."""
        self._attempt()

    def result(self, exchange: AttemptedExchange, state: Upstream, outcome: Reply | BadReply | BudgetExhausted) -> None:
        """An exchange has ended."""
        self._outstanding.pop(exchange, None)
        if self.finished:
            return
        if isinstance(outcome, Reply):
            self.answered_by = state.label
            self._finish(outcome)
        elif isinstance(outcome, BudgetExhausted):
            self._finish(outcome)
        else:
            self._failed(state, outcome)

    def abandon(self, error: Exception) -> None:
        """Ends it whatever is under way."""
        self._finish(error)

    def _failed(self, state: Upstream, bad: BadReply) -> None:
        now = self.world.clock()
        self.events.append(Event(bad.fault.value, now, state.label))
        if self._fault is None or self._fault.fault in _TELLING:
            self._fault = bad
        if bad.fault not in _RETRYABLE:
            self._excluded.append(state)
        if self.attempts < self._policy.attempts and len(self._excluded) < len(self._servers):
            pause = self._policy.backoff_s * (1 << (self.attempts - 1)) * (0.5 + self.world.random() / 2.0)
            self._retry_at = min(self._retry_at, now + pause)
            self._arm()
        elif not self._outstanding:
            self._give_up()

    def _attempt(self) -> None:
        world = self.world
        now = world.clock()
        self._retry_at = _NEVER
        server = choose(self._servers, self._tried, self._excluded, now, world.random)
        if server is None:
            self.attempts = self._policy.attempts
            if self._outstanding:
                self._arm()
            else:
                self._give_up()
            return
        try:
            self.budget.spend_query(now)
        except BudgetExhausted as spent:
            self._finish(spent)
            return
        state = server.state
        self.attempts += 1
        self._tried.append(state)
        if self.attempts < self._policy.attempts:
            self._retry_at = now + state.hedge_after_s * (1 << (self.attempts - 1)) * (1.0 + world.random() / 4.0)
        self._launch(server)
        if not self.finished:
            self._arm()

    def launched(self, exchange: AttemptedExchange, state: Upstream) -> None:
        """Said by ``_launch`` before the exchange starts, since it may end at once."""
        self._outstanding[exchange] = state

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        wake_at = self._retry_at if self._retry_at < self.ends_at else self.ends_at
        left_s = wake_at - self.world.clock()
        self._timer = self.world.call_later(left_s if left_s > 0.0 else 0.0, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self.world.clock()
        if now >= self.ends_at:
            self._give_up()
        elif now >= self._retry_at:
            if self._outstanding:
                for state in self._outstanding.values():
                    state.late()
                self.events.append(Event("hedge", now, ""))
            else:
                self.events.append(Event("retry", now, ""))
            self._attempt()
        else:  # the loop's clock is coarser than ours
            self._arm()

    def _give_up(self) -> None:
        if self._ours and self.world.clock() >= self.ends_at:
            self._finish(DeadlinePassed("the query's deadline passed before an upstream answered", hint=""))
            return
        bad = self._fault or BadReply(Fault.TIMEOUT, "no upstream answered in time")
        tried = ", ".join(sorted({state.label for state in self._tried}))
        self._finish(
            UpstreamFailed(
                bad.fault,
                bad.message,
                where=tried,
                hint="",
                ede=_ede(bad),
            )
        )

    def _finish(self, result: Reply | Exception) -> None:
        if self.finished:
            return
        self.finished = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for exchange in self._outstanding:
            exchange.wanted = False
        self._landed(result)


def _ede(bad: BadReply) -> int:
    """The Extended DNS Error that tells a client most (RFC 8914)."""
    if bad.ede >= 0:
        return bad.ede  # what the upstream itself said
    if bad.fault in {Fault.TIMEOUT, Fault.UNREACHABLE, Fault.BUSY}:
        return int(dns.Ede.NO_REACHABLE_AUTHORITY)
    if bad.fault in {Fault.SERVFAIL, Fault.REFUSED, Fault.NOTIMP, Fault.FORMERR, Fault.NOT_RECURSIVE}:
        return int(dns.Ede.NETWORK_ERROR)
    return int(dns.Ede.INVALID_DATA)


def zone_of(key: bytes) -> bytes:
    """The zone that a name's cost is put on: its last two labels, three below a short second-level label (co.uk)."""
    starts: list[int] = []
    position = 0
    while size := key[position]:
        starts.append(position)
        position += size + 1
    if len(starts) <= 2:
        return key
    short = key[starts[-1]] == 2 and key[starts[-2]] <= 3
    return key[starts[-3 if short else -2] :]
