"""What can be wrong with a configuration: one ``Problem`` an option, all of them in one ``ConfigProblems``.

Values are shown so that a typing error is seen at once, except what may be a secret: that is never printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from raydns.schemas.errors import ConfigError

VALUE_LEN_MAX: Final = 60
"""Characters of a value that are shown; a longer one is cut."""
PROBLEMS_MAX: Final = 100
"""Problems that are written out; a file of another kind altogether would fill the screen with them."""
HIDDEN: Final = "(hidden)"

_SECRET_WORDS: Final = frozenset({"key", "keys", "secret", "secrets", "token", "password", "passwd", "credential"})
_SECRET_SHAPE: Final = re.compile(r"\b(sk-|ghp_|xox[abp]-|Bearer )\S{6,}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: which option, with which value, why, and what to do."""

    path: str
    """The option as a dotted path such as ``forward.rules[0].suffix``; empty: the file as a whole."""
    value: str
    """The value as text, secrets hidden; empty: there is none to show."""
    message: str
    """What is wrong, a clause that follows the value."""
    hint: str = ""
    """What to write instead."""
    line: int | None = None
    """Line of the file, from 1; ``None``: not from a file."""
    source: str = ""
    """File, or ``environment NAME``."""

    @property
    def place(self) -> str:
        """``raydns.yaml:12`` or ``environment RAYDNS_SERVER__PORT``."""
        return f"{self.source}:{self.line}" if self.line and self.source else self.source

    @property
    def sentence(self) -> str:
        """Path, value and what is wrong."""
        said = f"{self.value} {self.message}" if self.value else self.message
        return f"{self.path}: {said}" if self.path else said

    def as_dict(self) -> dict[str, Any]:
        """The problem for ``--json``."""
        return {
            "path": self.path,
            "value": self.value,
            "message": self.message,
            "hint": self.hint,
            "line": self.line,
            "source": self.source,
        }


class ConfigProblems(ConfigError):
    """The configuration cannot be used; ``problems`` holds everything that is wrong with it.

    The message holds all of them as text, one a line, so that nothing is lost where an error crosses processes as
    its four fields alone.
    """

    code: ClassVar[str] = "config.problems"

    def __init__(self, message: str, *, where: str = "", hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, where=where, hint=hint)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> ConfigProblems:
        """The error for these problems: one is told in one line, several are listed."""
        if len(problems) == 1:
            only = problems[0]
            return cls(only.sentence, where=only.place, hint=only.hint, problems=problems)
        sources = {problem.source for problem in problems}
        where = sources.pop() if len(sources) == 1 else "configuration"
        lines = [f"{len(problems)} problems"]
        for problem in problems[:PROBLEMS_MAX]:
            place = f"line {problem.line}" if problem.line and problem.source == where else problem.place
            lines.append(f"  {place}: {problem.sentence}" if place and place != where else f"  {problem.sentence}")
            if problem.hint:
                lines.append(f"    hint: {problem.hint}")
        if len(problems) > PROBLEMS_MAX:
            lines.append(f"  and {len(problems) - PROBLEMS_MAX} more")
        return cls("\n".join(lines), where=where, problems=problems)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.message, self.where, self.hint, self.problems))


def _rebuild(message: str, where: str, hint: str, problems: tuple[Problem, ...]) -> ConfigProblems:
    return ConfigProblems(message, where=where, hint=hint, problems=problems)


def path_text(path: Sequence[str | int]) -> str:
    """``("forward", "rules", 0, "suffix")`` as ``forward.rules[0].suffix``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def value_text(path: Sequence[str | int], value: Any) -> str:
    """The value as a message shows it: short, on one line, secrets hidden."""
    if any(is_secret(part) for part in path if isinstance(part, str)) and not isinstance(value, bool | int | float):
        return HIDDEN
    text = repr(_without_secrets(value)) if isinstance(value, str | dict | list | tuple) else str(value)
    text = _SECRET_SHAPE.sub(HIDDEN, text)
    return text if len(text) <= VALUE_LEN_MAX else text[: VALUE_LEN_MAX - 1] + "…"


def is_secret(name: str) -> bool:
    """Whether an option of this name may hold a secret; names of files are none."""
    words = re.split(r"[^a-z]+", name.lower())
    return not _SECRET_WORDS.isdisjoint(words) and words[-1] != "file"


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: HIDDEN if isinstance(k, str) and is_secret(k) else _without_secrets(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return value
