"""How long to wait before something that failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Doubles from ``first_s`` to ``last_s``; a run of at least ``stable_s`` is a success and starts it over.

    What was stable comes back at once: a crash every few hours should cost a start and nothing more.
    """

    first_s: float = 0.1
    last_s: float = 10.0
    stable_s: float = 10.0
    failures: int = 0
    """In a row."""

    def after(self, ran_s: float) -> float:
        """Seconds to wait after a run that lasted ``ran_s``."""
        if ran_s >= self.stable_s:
            self.failures = 0
            return 0.0
        self.failures += 1
        return float(min(self.last_s, self.first_s * 2 ** min(self.failures - 1, 30)))
