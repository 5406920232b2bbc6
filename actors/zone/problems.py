"""What can be wrong with a zone: problems with severity, place, what stood there and what was expected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from raydns.schemas.errors import ZoneFileError

PROBLEMS_MAX: Final = 1000  # a report longer than this helps nobody

Severity = Literal["error", "warning"]


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong; errors stop the zone, warnings do not."""

    severity: Severity
    code: str
    """Stable, for ``--json``: ``syntax``, ``rdata``, ``cname-and-other-data``…"""
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    found: str = ""
    expected: str = ""

    @property
    def where(self) -> str:
        """``file:line:column``, as far as known."""
        parts = [self.file] + [str(number) for number in (self.line, self.column) if number]
        return ":".join(parts)

    def __str__(self) -> str:
        text = f"{self.where}: {self.severity}: {self.message}" if self.file else f"{self.severity}: {self.message}"
        if self.found:
            text += f"; found {self.found!r}"
        if self.expected:
            text += f"; expected {self.expected}"
        return text


class MasterFileError(ZoneFileError):
    """A master file that cannot become a zone; ``problems`` has every error and warning of it."""

    code = "zone.master"

    def __init__(self, origin_file: str, problems: Sequence[Problem]) -> None:
        self.problems = list(problems)
        self.origin_file = origin_file
        errors = [problem for problem in self.problems if problem.severity == "error"]
        first = errors[0] if errors else None
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__(
            f"{count}: " + "; ".join(str(problem) for problem in errors[:3]) + ("; …" if len(errors) > 3 else ""),
            where=first.where if first is not None else origin_file,
            hint="correct it and load it again; what was served before still is" if errors else "",
        )

    def __reduce__(self) -> tuple[object, ...]:
        return (MasterFileError, (self.origin_file, self.problems))

    def report(self) -> str:
        """All problems, one a line."""
        return "\n".join(str(problem) for problem in self.problems)


class Problems:
    """Collects problems up to a bound, errors before warnings."""

    def __init__(self) -> None:
        self.all: list[Problem] = []
        self.errors = 0
        self.left_out = 0

    def add(self, problem: Problem) -> None:
        """Keeps a problem; counts it where there are too many."""
        if problem.severity == "error":
            self.errors += 1
        if len(self.all) < PROBLEMS_MAX or (problem.severity == "error" and self.errors <= PROBLEMS_MAX):
            self.all.append(problem)
        else:
            self.left_out += 1

    @property
    def full(self) -> bool:
        """Whether reading on makes no sense any more."""
        return self.errors >= PROBLEMS_MAX
