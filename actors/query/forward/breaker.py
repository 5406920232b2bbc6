"""The circuit breaker of one upstream, without clock or IO.

            failures in a row, over several names; or as many slow answers; or a bad probe
        CLOSED ────────────────────────────────────────────────────────────────▶ OPEN ◀─┐
          ▲                                                      its time is over │     │ the probe failed:
          │                 a query that was let through was answered             ▼     │ the time doubles
          └─────────────────────────────────────────────────────────────── HALF_OPEN ──┘

What counts (design: limits): time-outs, failed connections and malformed replies. SERVFAIL and REFUSED are what a
healthy server says of a broken zone: in a row over several names they only ask for a probe, whose result counts.
An outcome counts only if its exchange began in the present state: late news from before is no news.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from raydns.schemas.config.forward import BreakerConfig

SEVERAL: Final = 3  # names that a run of failures must touch; one broken name never opens a breaker
PROBE_EVERY: Final = 10  # design: one probe in ten
PROBE_PAUSE_S: Final = 1.0


class State(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Run:
    """Events in a row of one kind, and which names they touched (at most ``SEVERAL`` are remembered)."""

    __slots__ = ("count", "names")

    def __init__(self) -> None:
        self.count = 0
        self.names: set[bytes] = set()

    def add(self, name: bytes, limit: int) -> bool:
        """Counts one; whether the run has reached ``limit`` over several names."""
        self.count += 1
        if len(self.names) < SEVERAL:
            self.names.add(name)
        return self.count >= limit and len(self.names) >= min(SEVERAL, limit)

    def clear(self) -> None:
        """The row is broken."""
        if self.count:
            self.count = 0
            self.names.clear()


class Breaker:
    """See the picture above."""

    __slots__ = (
        "_bad",
        "_config",
        "_failed",
        "_probe_after",
        "_slow",
        "_turn",
        "changed_at",
        "open_s",
        "open_until",
        "opened",
        "state",
        "wants_probe",
    )

    def __init__(self, config: BreakerConfig) -> None:
        self.state = State.CLOSED
        self.changed_at = float("-inf")  # when it last opened or closed
        self.open_until = 0.0
        self.open_s = config.open_s  # of the next opening
        self.opened = 0  # times in all
        self.wants_probe = False  # only a probe can tell whether the server or its zones are broken
        self._config = config
        self._failed = Run()
        self._slow = Run()
        self._bad = Run()  # SERVFAIL and the like
        self._turn = 0
        self._probe_after = float("-inf")

    def configure(self, config: BreakerConfig) -> None:
        """Takes new thresholds; what is known stays."""
        self._config = config
        self.open_s = min(max(self.open_s, config.open_s), config.open_max_s)

    def allows(self, now: float) -> bool:
        """Whether a query may go there now; in HALF_OPEN every tenth that asks may, the first included."""
        if self.state is State.CLOSED:
            return True
        if self.state is State.OPEN:
            if now < self.open_until:
                return False
            self.state = State.HALF_OPEN
            self._turn = 0
        self._turn += 1
        return self._turn % PROBE_EVERY == 1

    def success(self, name: bytes, began: float, now: float, *, slow: bool = False) -> None:
        """An answer came."""
        if began < self.changed_at:
            return
        if self.state is State.CLOSED:
            self._failed.clear()
            self._bad.clear()
            if not slow:
                self._slow.clear()
            elif self._slow.add(name, self._config.failures):
                self._open(now)
        elif slow:
            self._probe_failed(now)
        else:
            self._close(now)

    def failure(self, name: bytes, began: float, now: float) -> None:
        """A time-out, a failed connection or a malformed reply."""
        if began < self.changed_at:
            return
        if self.state is not State.CLOSED:
            self._probe_failed(now)
        elif self._failed.add(name, self._config.failures):
            self._open(now)

    def bad_answer(self, name: bytes, began: float, now: float) -> None:
        """SERVFAIL, REFUSED and the like: alive, but is it any use?"""
        if began < self.changed_at:
            return
        if self.state is not State.CLOSED:
            self._probe_failed(now)
            return
        self._failed.clear()
        if self._bad.add(name, self._config.failures) and now >= self._probe_after:
            self.wants_probe = True

    def probe_started(self, now: float) -> None:
        """The probe that was wanted is on its way."""
        self.wants_probe = False
        self._probe_after = now + PROBE_PAUSE_S

    def probe_done(self, now: float, *, good: bool) -> None:
        """What the wanted probe brought."""
        self._bad.clear()
        if not good and self.state is State.CLOSED:
            self._open(now)

    def _open(self, now: float) -> None:
        self.state = State.OPEN
        self.opened += 1
        self.changed_at = now
        self.open_until = now + self.open_s
        self.open_s = min(self.open_s * 2.0, self._config.open_max_s)
        self.wants_probe = False
        for run in (self._failed, self._slow, self._bad):
            run.clear()

    def _probe_failed(self, now: float) -> None:
        # While OPEN only the least bad of all open ones is asked; that alone does not lengthen its time.
        if self.state is State.HALF_OPEN:
            self._open(now)

    def _close(self, now: float) -> None:
        self.state = State.CLOSED
        self.changed_at = now
        self.open_s = self._config.open_s
        for run in (self._failed, self._slow, self._bad):
            run.clear()
