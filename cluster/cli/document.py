"""Writes ``docs/cli.md`` and ``docs/errors.md``: ``python -m raydns.cluster.cli.document``."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click

from raydns.actors.llm import faults as llm_faults
from raydns.actors.llm import weights as llm_weights
from raydns.actors.query import budget
from raydns.actors.query.forward import faults as forward_faults
from raydns.actors.zone import problems as zone_problems
from raydns.schemas import errors, wire
from raydns.schemas.config import problems as config_problems

from . import zone
from .exits import MEANING
from .main import raydns

_MODULES: Final = {
    module.__name__
    for module in (errors, wire, config_problems, budget, forward_faults, zone_problems, llm_faults, llm_weights, zone)
}
"""Where errors are defined; named, so that the page does not depend on what else a process has imported."""


def cli_page() -> str:
    """The page of all commands, from click's own tree."""
    return "\n".join(_cli()) + "\n"


def errors_page() -> str:
    """The page of all error codes, from the catalogue."""
    return "\n".join(_errors()) + "\n"


def _cli() -> Iterator[str]:
    yield "# Command line"
    yield ""
    yield "Generated from the commands by `python -m raydns.cluster.cli.document`; edit `cluster/cli/` instead."
    yield ""
    yield "Every command takes, before or behind its name:"
    yield ""
    for option in (param for param in raydns.params if isinstance(param, click.Option) and not param.expose_value):
        if option.name not in {"help", "version"}:
            yield f"- `{_option(option)}`: {option.help}"
    yield ""
    yield "Results go to standard output, errors and remarks to standard error: `raydns: where: message`, then a hint."
    yield "With `--json` both are JSON. No command imports Ray."
    yield ""
    yield "| exit code | meaning |"
    yield "| --- | --- |"
    for code, meaning in MEANING.items():
        yield f"| {code} | {meaning} |"
    for path, command in walk(raydns, ("raydns",)):
        yield from _command(path, command)


def walk(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below a group, in the order of the help."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from walk(command, (*path, name))
        else:
            yield (*path, name), command


def _command(path: tuple[str, ...], command: click.Command) -> Iterator[str]:
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    usage = " ".join([*path, *(argument.make_metavar(click.Context(command)) for argument in arguments)])
    yield ""
    yield f"## {usage}"
    yield ""
    yield inspect.cleandoc(command.help or "")
    own = [param for param in command.params if isinstance(param, click.Option) and param.expose_value]
    if own:
        yield ""
    for option in own:
        default = f" Default {option.default:g}." if isinstance(option.default, float) else ""
        yield f"- `{_option(option)}`{': ' + option.help if option.help else ''}{default}"


def _option(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.metavar or 'VALUE'}"
    return ", ".join(option.opts) + value


def _errors() -> Iterator[str]:
    yield "# Errors"
    yield ""
    yield "Generated from the catalogue (`schemas/errors.py`) by `python -m raydns.cluster.cli.document`."
    yield ""
    yield "Codes are stable: they stand in logs, in `--json` output and in the API. Each error says what is wrong,"
    yield "where, and what to do."
    yield ""
    yield "| code | exit code | meaning |"
    yield "| --- | --- | --- |"
    for code, kind in errors.catalogue().items():
        if kind.__module__ in _MODULES:
            meaning = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`")
            yield f"| `{code}` | {kind.exit_code} | {meaning} |"


def main(directory: Path) -> None:
    """Writes both pages below ``directory`` (the repository's ``docs``)."""
    (directory / "cli.md").write_text(cli_page())
    (directory / "errors.md").write_text(errors_page())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
