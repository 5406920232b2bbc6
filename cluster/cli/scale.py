"""``raydns scale query=4``: how many actors of a kind there are."""

from __future__ import annotations

from typing import Final

import click

from raydns.schemas.errors import CommandError

from .output import emit
from .shared import RaydnsCommand, Settings, pass_settings

KINDS: Final = ("query", "cache", "llm")
COUNT_MAX: Final = 1000


@click.command(cls=RaydnsCommand)
@click.argument("wanted", nargs=-1, required=True, metavar="KIND=N...")
@pass_settings
def scale(settings: Settings, wanted: tuple[str, ...]) -> None:
    """Changes how many query, cache or llm actors there are, without losing a query.

    The number holds until the next `scale` or configuration reload; with `query.autoscale` the pool moves on from
    there between `query.pool_min` and `query.pool_max`.
    """
    counts = parse(wanted)
    answers = [settings.command("scale", kind=kind, count=count) for kind, count in counts.items()]
    data = {"scale": counts, "installed": all(answer.get("installed", True) for answer in answers)}
    said = ", ".join(f"{kind}={count}" for kind, count in counts.items())
    late = "" if data["installed"] else "; not every machine has confirmed it yet (raydns status)"
    emit(settings, data, lambda console: console.print(f"scale: {said}{late}"))


def parse(wanted: tuple[str, ...]) -> dict[str, int]:
    """``("query=4",)`` → ``{"query": 4}``; raises ``CommandError``."""
    counts: dict[str, int] = {}
    for word in wanted:
        kind, equals, number = word.partition("=")
        if not equals or kind not in KINDS:
            raise CommandError(
                f"{word!r} is not KIND=N with a kind of {', '.join(KINDS)}", where="scale", hint="raydns scale query=4"
            )
        if not (number.isascii() and number.isdecimal()) or not 1 <= int(number[:9]) <= COUNT_MAX:
            raise CommandError(f"{number!r} is not a number from 1 to {COUNT_MAX}", where=f"scale {kind}")
        if kind in counts:
            raise CommandError(f"{kind} stands twice", where="scale", hint="name each kind once")
        counts[kind] = int(number)
    return counts
