"""``raydns cache flush``: answers that every tier of every machine forgets."""

from __future__ import annotations

import click

from raydns.schemas import names

from .output import emit
from .shared import RaydnsGroup, Settings, pass_settings


@click.group(cls=RaydnsGroup)
def cache() -> None:
    """Cached answers."""


@cache.command()
@click.argument("name")
@click.option("--subtree", is_flag=True, help="Everything below the name as well.")
@pass_settings
def flush(settings: Settings, name: str, subtree: bool) -> None:
    """Forgets the cached answers for NAME, in every tier of every machine.

    Returns when every living machine has confirmed it: the next answer is a fresh one.
    """
    text = names.to_text(names.key(names.from_text(name)))
    answer = settings.command("cache.flush", name=text, subtree=subtree)
    data = {"name": text, "subtree": subtree, "installed": bool(answer.get("installed", True))}
    below = " and everything below it" if subtree else ""
    late = "" if data["installed"] else "; not every machine has confirmed it yet (raydns status)"
    emit(settings, data, lambda console: console.print(f"flushed {text}{below}{late}"))
