"""``raydns zone``: loads a master file, lists and shows what is served."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from raydns.schemas import names
from raydns.schemas.errors import ZoneFileError

from .output import emit, note
from .shared import RaydnsGroup, Settings, pass_settings

if TYPE_CHECKING:
    from rich.console import Console

    from raydns.actors.zone.problems import MasterFileError, Problem
    from raydns.actors.zone.zone_data import ZoneData

SIZE_MAX: Final = 15 * 1024 * 1024
"""Octets of a master file that fit a control frame; larger ones are named in the configuration."""
PROBLEMS_SHOWN: Final = 100
COLUMNS: Final = ("name", "serial", "records", "state", "shard", "problem")


@click.group(cls=RaydnsGroup)
def zone() -> None:
    """Authoritative zones."""


@zone.command("load")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--origin", metavar="NAME", help="The zone's name; without it the file says it by $ORIGIN or its SOA.")
@pass_settings
def load(settings: Settings, file: Path, origin: str | None) -> None:
    """Loads or replaces a zone from a master file (RFC 1035), and returns when machines serve it.

    A file with mistakes changes nothing; all of them are told with their lines. The zone stays until the
    configuration is reloaded without it.
    """
    text, data = read_zone(file, origin)
    answer = settings.command("zone.load", apex=names.to_text(data.apex), text=text, file=str(file.absolute()))
    entry = answer.get("zone", {})
    if not answer.get("installed", True):
        note("not every machine has confirmed it yet (raydns status)")
    said = f"{entry.get('name')} serial {entry.get('serial')}, {entry.get('records')} records"
    emit(settings, answer, lambda console: console.print(f"loaded {said}"))


@zone.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--origin", metavar="NAME", help="The zone's name; without it the file says it by $ORIGIN or its SOA.")
@pass_settings
def check(settings: Settings, file: Path, origin: str | None) -> None:
    """Checks a master file and tells every mistake with its line; needs no node."""
    _, data = read_zone(file, origin)
    told = {
        "zone": {"name": names.to_text(data.apex), "serial": data.serial, "records": data.records},
        "warnings": [as_dict(problem) for problem in data.warnings],
    }

    def write(console: Console) -> None:
        for warning in data.warnings:
            note(str(warning))
        said = f"{names.to_text(data.apex)} serial {data.serial}, {data.records} records"
        console.print(f"{file}: {said}: the zone can be served", markup=False)

    emit(settings, told, write)


@zone.command("list")
@pass_settings
def list_(settings: Settings) -> None:
    """Lists all zones that are served, and files that could not be."""
    answer = settings.command("zone.list")
    emit(settings, answer, lambda console: _table(console, answer))


@zone.command("show")
@click.argument("name")
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Shows one zone: serial, records, its shard and image."""
    answer = settings.command("zone.show", name=names.to_text(names.key(names.from_text(name))))

    def write(console: Console) -> None:
        for key, value in answer.get("zone", {}).items():
            console.print(f"{key:<10}{value}")

    emit(settings, answer, write)


def read_zone(file: Path, origin: str | None) -> tuple[str, ZoneData]:
    """A master file's text and what it means, read here so that every mistake is told before anything is sent.

    Raises:
        ZoneFileError: all that is wrong with it.
    """
    from raydns.actors.zone.master import confined_includes, parse
    from raydns.actors.zone.problems import MasterFileError

    apex = names.key(names.from_text(origin)) if origin else None
    text = read_master(file)
    try:
        return text, parse(text, apex, origin_file=str(file), read_include=confined_includes(file.absolute().parent))
    except MasterFileError as error:
        raise refusal(file, error, origin) from None


def refusal(file: Path, error: MasterFileError, origin: str | None) -> ZoneFileError:
    """Every error of a master file in one: a line each; as ``problems`` for JSON."""
    errors = [problem for problem in error.problems if problem.severity == "error"]
    relative = origin is None and any("origin" in problem.message for problem in errors)
    hint = f"raydns zone load {file} --origin {file.name.removesuffix('.zone')}" if relative else error.hint
    if len(errors) == 1:
        found = ZoneFileError(_said(errors[0]), where=errors[0].where or str(file), hint=hint)
    else:
        lines = [f"  {problem.where}: {_said(problem)}" for problem in errors[:PROBLEMS_SHOWN]]
        more = [f"  and {len(errors) - PROBLEMS_SHOWN} more"] if len(errors) > PROBLEMS_SHOWN else []
        found = ZoneFileError("\n".join([f"{len(errors)} errors", *lines, *more]), where=str(file), hint=hint)
    return ZoneFileProblems(
        found.message, where=found.where, hint=found.hint, problems=[as_dict(problem) for problem in error.problems]
    )


class ZoneFileProblems(ZoneFileError):
    """A master file cannot be used; ``problems`` holds everything that is wrong with it."""

    code = "zone.file.problems"

    def __init__(self, message: str, *, where: str = "", hint: str = "", problems: Sequence[Any] = ()) -> None:
        super().__init__(message, where=where, hint=hint)
        self.problems = list(problems)


def as_dict(problem: Problem) -> dict[str, Any]:
    """A problem for ``--json``."""
    return {field: getattr(problem, field) for field in problem.__struct_fields__}


def _said(problem: Problem) -> str:
    found = f"; found {problem.found!r}" if problem.found else ""
    return problem.message + found + (f"; expected {problem.expected}" if problem.expected else "")


def read_master(file: Path) -> str:
    """The text of a master file; octets that are not UTF-8 become escapes. Raises ``ZoneFileError``."""
    try:
        if file.is_dir():
            raise ZoneFileError("is a directory", where=str(file), hint="name a master file in it")
        if file.stat().st_size > SIZE_MAX:
            hint = "name it in zones.files of the configuration and say `raydns config reload`"
            raise ZoneFileError(f"has more than {SIZE_MAX} octets", where=str(file), hint=hint)
        return _without_stray_octets(file.read_text("utf-8", "surrogateescape"))
    except FileNotFoundError:
        raise ZoneFileError(
            "no such file", where=str(file), hint="paths are taken from where the command runs"
        ) from None
    except OSError as error:
        raise ZoneFileError(f"cannot be read: {error.strerror}", where=str(file)) from error


def _without_stray_octets(text: str) -> str:
    r"""Octets that are no UTF-8 as ``\DDD`` (RFC 1035 section 5.1): the same data, in text that can be sent."""
    return re.sub("[\udc80-\udcff]", lambda found: f"\\{ord(found[0]) - 0xDC00:03d}", text)


def _table(console: Console, answer: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="right" if column in {"serial", "records", "shard"} else "left")
    for entry in answer.get("zones", []):
        table.add_row(*(str(entry.get(column, "")) for column in COLUMNS))
    console.print(table if answer.get("zones") else "no zones")
    for name, problem in answer.get("problems", {}).items():
        console.print(f"{name} is not loaded: {problem}", style="red")
