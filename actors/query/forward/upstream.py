"""What is known of one upstream: how fast it is, whether it works, what it cannot do. Without clock or IO.

Two estimates of its time are kept. ``srtt`` with its variation (RFC 6298) says whom to ask and when to ask somebody
else as well; a time-out doubles it. ``usual`` follows only ordinary answers and says what is slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from raydns.schemas.config.forward import BreakerConfig

from .breaker import Breaker, State
from .faults import BLAMED, PROBE_ONLY, Fault
from .udp import Address

RTT_UNKNOWN_S: Final = 0.05  # better than a distant server, worse than a near one: the unknown gets its try
RTT_MAX_S: Final = 4.0
HEDGE_UNKNOWN_S: Final = 0.4  # Unbound's first time-out is 376 ms
HEDGE_MIN_S: Final = 0.15
HEDGE_MAX_S: Final = 1.0
PATIENCE_MIN_S: Final = 1.0
PATIENCE_MAX_S: Final = 2.5
SLOW_MIN_S: Final = 0.3  # below it nothing is slow: a resolver with a cold cache takes so long
SAMPLES_MIN: Final = 5
EXPLORE: Final = 0.05  # share of first attempts that go to somebody who is not the best


class Upstream:
    """One upstream server's state."""

    __slots__ = (
        "_config",
        "address",
        "breaker",
        "case_wanted",
        "edns",
        "in_flight",
        "keeps_case",
        "label",
        "outcomes",
        "rttvar",
        "samples",
        "srtt",
        "usual",
    )

    def __init__(self, address: Address, config: BreakerConfig, *, case_random: bool = True) -> None:
        self.address = address
        self.label = str(address)
        self.breaker = Breaker(config)
        self.case_wanted = case_random  # 0x20, by configuration
        self.keeps_case = True  # off once the server is seen to change case
        self.edns = True  # off once it is seen to fail on OPT and to answer without (RFC 6891 section 7)
        self.in_flight = 0
        self.srtt = RTT_UNKNOWN_S
        self.rttvar = 0.0
        self.usual = 0.0
        self.samples = 0
        self.outcomes: dict[str, int] = {}  # "answer" or a fault → exchanges
        self._config = config

    def configure(self, config: BreakerConfig, *, case_random: bool = True) -> None:
        """Takes new options; what is known stays."""
        self._config = config
        self.case_wanted = case_random
        self.breaker.configure(config)

    @property
    def case_random(self) -> bool:
        """Whether questions go there in random case."""
        return self.case_wanted and self.keeps_case

    @property
    def hedge_after_s(self) -> float:
        """How long an answer is waited for before somebody else is asked as well."""
        if not self.samples:
            return HEDGE_UNKNOWN_S
        return min(max(self.srtt + 4.0 * self.rttvar, HEDGE_MIN_S), HEDGE_MAX_S)

    @property
    def patience_s(self) -> float:
        """How long an answer is waited for before the server is blamed."""
        return min(max(4.0 * self.hedge_after_s, PATIENCE_MIN_S), PATIENCE_MAX_S)

    def answered(self, name: bytes, began: float, now: float) -> None:
        """An answer came; its time is a sample."""
        rtt = now - began
        slow = self.samples >= SAMPLES_MIN and rtt > SLOW_MIN_S and rtt > self._config.slow_factor * self.usual
        if self.samples:
            self.rttvar += (abs(self.srtt - rtt) - self.rttvar) * 0.25
            self.srtt += (rtt - self.srtt) * 0.125
            self.usual += (rtt - self.usual) * (0.015625 if slow else 0.125)
        else:
            self.srtt = self.usual = rtt
            self.rttvar = rtt / 2.0
        self.samples += 1
        self.outcomes["answer"] = self.outcomes.get("answer", 0) + 1
        self.breaker.success(name, began, now, slow=slow)

    def answered_late(self) -> None:
        """An answer came after the server was blamed for its silence: worth a count, but it excuses nothing."""
        self.outcomes["late"] = self.outcomes.get("late", 0) + 1

    def late(self) -> None:
        """Somebody else is being asked because this one takes long: it falls back in the order."""
        self.srtt = min(self.srtt * 2.0, RTT_MAX_S)

    def failed(self, fault: Fault, name: bytes, began: float, now: float) -> None:
        """An exchange brought no answer."""
        self.outcomes[fault.value] = self.outcomes.get(fault.value, 0) + 1
        if fault in BLAMED:
            self.late()
            self.breaker.failure(name, began, now)
        elif fault in PROBE_ONLY:
            self.breaker.bad_answer(name, began, now)


class HasState(Protocol):
    """A server, as far as the choice goes."""

    @property
    def state(self) -> Upstream:
        """What is known of it."""


S = TypeVar("S", bound=HasState)


def choose(
    servers: Sequence[S],
    tried: Sequence[Upstream],
    excluded: Sequence[Upstream],
    now: float,
    random: Callable[[], float],
) -> S | None:
    """Whom to ask next; ``None`` if nobody is left.

    Args:
        servers: all of a rule.
        tried: those that this question has been sent to already, in order: only asked again if nobody else is left.
        excluded: those whose answer to this question is known and no use.
        now: monotonic seconds.
        random: uniform in [0, 1).
    """
    left = [s for s in servers if s.state not in excluded] if excluded else servers
    if not left:
        return None
    if len(left) == 1:
        left[0].state.breaker.allows(now)  # so that an open breaker becomes half-open when its time is over
        return left[0]
    fresh = [s for s in left if s.state not in tried] if tried else left
    usable = [s for s in fresh if s.state.breaker.allows(now)]
    if not usable:
        if fresh and len(fresh) == len(left):
            return min(fresh, key=_badness)  # all open: the least bad
        usable = [s for s in left if s.state in tried and s.state.breaker.state is State.CLOSED]
        return min(usable or left, key=_badness)
    # A half-open one that was let through is the probe: asked now, or its turn is lost.
    probe = next((s for s in usable if s.state.breaker.state is State.HALF_OPEN), None)
    if probe is not None:
        return probe
    best = min(usable, key=_score)
    if len(usable) > 1 and not tried and random() < EXPLORE:
        others = [s for s in usable if s is not best]
        return others[int(random() * len(others))]
    return best


def _score(server: HasState) -> float:
    return server.state.srtt


def _badness(server: HasState) -> tuple[int, float, float]:
    breaker = server.state.breaker
    return (breaker.state is not State.CLOSED, breaker.open_until, server.state.srtt)
