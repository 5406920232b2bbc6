"""Whether a provider may be called at all: its breaker, and the pause that it or an operator's mistake imposed.

open ── 5 failures in 30 s ──▶ closed for 30 s ── one call tries ── success ─▶ open
 ▲                                                      └── failure ─▶ closed for 30 s
 └── pause over (429, 402), configuration read again (401)
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from .faults import CONSEQUENCES, Fault, ProviderError

FAILURES: Final = 5
WINDOW_S: Final = 30.0
OPEN_S: Final = 30.0
PAUSE_MAX_S: Final = 300.0
"""Of a provider's own Retry-After: it may ask for hours, and then we would never learn that it changed its mind."""


class Gate:
    """One provider's; all times are monotonic seconds."""

    def __init__(self) -> None:
        self._failures: deque[float] = deque(maxlen=FAILURES)
        self._closed_until = 0.0
        self._reason: Fault | None = None
        self._tripped = False  # by failures, not by a pause
        self._trying = False  # a single call is out after the breaker's time

    def refusal(self, now: float) -> tuple[Fault, float] | None:
        """Why no call may be made now, and for how many seconds; ``None``: go ahead."""
        if self._reason is not None and now < self._closed_until:
            return self._reason, self._closed_until - now
        if self._tripped and self._trying:
            return self._reason or Fault.SERVER, 1.0
        return None

    def started(self, now: float) -> None:
        """A call goes out; after the breaker's time it is the only one until it ends."""
        if self._tripped and now >= self._closed_until:
            self._trying = True

    def succeeded(self) -> None:
        """A call ended well."""
        self._failures.clear()
        self._tripped = self._trying = False
        self._reason = None

    def failed(self, error: ProviderError, now: float) -> None:
        """A call failed: count it, or pause."""
        consequence = CONSEQUENCES[error.fault]
        if consequence.pause_s:
            pause = consequence.pause_s
            if error.retry_after_s > 0 and math.isfinite(pause):
                pause = min(error.retry_after_s, PAUSE_MAX_S)
            self._close(error.fault, now + pause)
            self._trying = False
            return
        if not consequence.breaker:
            self._trying = False
            return
        self._failures.append(now)
        recent = len(self._failures) == FAILURES and now - self._failures[0] <= WINDOW_S
        if recent or self._trying:
            self._tripped = True
            self._close(error.fault, now + OPEN_S)
        self._trying = False

    def abandoned(self) -> None:
        """The call was cancelled: nothing was learnt."""
        self._trying = False

    def reset(self) -> None:
        """The configuration was read again: whatever it was, try."""
        self._failures.clear()
        self._closed_until = 0.0
        self._reason = None
        self._tripped = self._trying = False

    def is_closed(self, now: float) -> bool:
        """For the gauge ``raydns_llm_breaker_open``: an electrician's open is our closed."""
        return self.refusal(now) is not None

    def _close(self, reason: Fault, until: float) -> None:
        if self._reason is None or until >= self._closed_until:
            self._reason, self._closed_until = reason, until
