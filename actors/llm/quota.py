"""The day's count of model calls in a small file, so that a restarted actor does not spend the quota twice."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)


class QuotaFile:
    """A ``limits.DayStore`` in ``<state_dir>/llm/<n>/quota.json``, replaced whole by rename.

    It is not synced to the disk: a killed process loses nothing, a power cut may lose the last calls' count, and
    the provider counts as well.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> tuple[int, int]:
        """(day, calls); (0, 0), said in the log, where the file is damaged."""
        try:
            found = json.loads(self._path.read_bytes())
            day, calls = found["day"], found["calls"]
            if not (isinstance(day, int) and isinstance(calls, int) and day >= 0 and calls >= 0):
                raise ValueError("day and calls are not counts")
        except FileNotFoundError:
            return 0, 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("llm.quota_unreadable", extra={"path": str(self._path), "problem": str(error)})
            return 0, 0
        return day, calls

    def save(self, day: int, calls: int) -> None:
        """Writes the count."""
        temporary = self._path.with_suffix(".new")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary.write_text(json.dumps({"day": day, "calls": calls}))
            os.replace(temporary, self._path)
        except OSError as error:
            log.error("llm.quota_unwritable", extra={"path": str(self._path), "problem": str(error)})


class QuotaMemory:
    """A ``limits.DayStore`` that forgets: for tests and for an actor without a state directory."""

    def __init__(self) -> None:
        self.kept = (0, 0)

    def load(self) -> tuple[int, int]:
        """The count."""
        return self.kept

    def save(self, day: int, calls: int) -> None:
        """Keeps it."""
        self.kept = (day, calls)
