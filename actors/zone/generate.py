r"""``$GENERATE``: many records from a template, with all of BIND's modifiers.

    $GENERATE start-stop[/step] owner [TTL] [class] type data

A ``$`` stands for the number; ``${offset,width,base}`` for the number plus an offset, padded with zeros to a width, in
base d, o, x, X, or n, N: nibbles in reverse with dots between them, the dots counted in the width. ``\$`` is a dollar.
"""

from __future__ import annotations

import re
from typing import Final

NUMBERS_MAX: Final = 262_144
WIDTH_MAX: Final = 255
_RANGE: Final = re.compile(r"(\d{1,10})-(\d{1,10})(?:/(\d{1,10}))?", re.ASCII)
_DOLLAR: Final = re.compile(r"\\\$|\$\$|\$\{([^}]*)\}|\$")
_MODIFIER: Final = re.compile(r"(-?\d{1,10})(?:,(\d{1,5})(?:,(.))?)?", re.ASCII)


class GenerateProblem(Exception):
    """What is wrong with a template or a range."""


def numbers(text: str) -> range:
    """The numbers of ``start-stop[/step]``; raises ``GenerateProblem``."""
    match = _RANGE.fullmatch(text)
    if match is None:
        raise GenerateProblem("no range: it is written start-stop or start-stop/step")
    start, stop, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step < 1 or stop < start or stop > 0x7FFFFFFF:
        raise GenerateProblem("the range is empty, or its step is not positive")
    chosen = range(start, stop + 1, step)
    if len(chosen) > NUMBERS_MAX:
        raise GenerateProblem(f"{len(chosen)} records; at most {NUMBERS_MAX} from one $GENERATE")
    return chosen


def expand(template: str, number: int) -> str:
    """The template with the number in it; raises ``GenerateProblem``."""

    def put(match: re.Match[str]) -> str:
        whole = match[0]
        if whole in {"\\$", "$$"}:
            return "\\$"  # an escaped dollar is a dollar in names and strings alike
        if match[1] is None:
            return str(number)
        return _formatted(match[1], number)

    return _DOLLAR.sub(put, template)


def _formatted(text: str, number: int) -> str:
    match = _MODIFIER.fullmatch(text)
    if match is None:
        raise GenerateProblem(f"a bad modifier ${{{text}}}: it is written ${{offset,width,base}}")
    value = number + int(match[1])
    width = int(match[2] or 0)
    base = match[3] or "d"
    if value < 0:
        raise GenerateProblem(f"{number} with offset {match[1]} is negative")
    if width > WIDTH_MAX:
        raise GenerateProblem(f"a width of {width}; at most {WIDTH_MAX}")
    if base in "doxX":
        return f"{value:0{width}{base}}"
    if base in "nN":
        digits = f"{value:0{(width + 1) // 2 or 1}{'x' if base == 'n' else 'X'}}"
        return ".".join(reversed(digits))
    raise GenerateProblem(f"an unknown base {base!r}; one of d, o, x, X, n, N")
