"""``raydns config``: checks, shows and documents a configuration, and gives it to a running cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import emit, note, to_json
from .shared import RaydnsGroup, Settings, pass_settings

if TYPE_CHECKING:
    from rich.console import Console


@click.group(cls=RaydnsGroup)
def config() -> None:
    """The configuration."""


@config.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@pass_settings
def check(settings: Settings, file: Path | None, strict: bool) -> None:
    """Checks FILE (or the configuration in use, with the environment) and tells every mistake at once."""
    if file is not None:
        settings.config_option = str(file)
    loaded = settings.loaded
    data = {"file": str(loaded.source or ""), "ok": True, "warnings": loaded.warnings}

    def write(console: Console) -> None:
        for warning in loaded.warnings:
            note(f"warning: {warning}")
        console.print(f"{loaded.source or 'defaults'}: the configuration can be used")

    emit(settings, data, write)
    if strict and loaded.warnings:
        raise click.exceptions.Exit(3)


@config.command()
@pass_settings
def schema(settings: Settings) -> None:
    """Prints the JSON schema of a configuration file, for editors and other programs."""
    import json

    from raydns.schemas.config.load import json_schema

    click.echo(to_json(json_schema()) if settings.json else json.dumps(json_schema(), indent=2, ensure_ascii=False))


@config.command()
@click.option("--running", is_flag=True, help="What the cluster has in force, instead of file and environment.")
@click.option("--changed", is_flag=True, help="Only options that are not the default.")
@pass_settings
def show(settings: Settings, running: bool, changed: bool) -> None:
    """Shows every option with its value, and where it came from: default, file and line, or variable."""
    from raydns.schemas.config import Config
    from raydns.schemas.config.options import flatten

    if running:
        answer = settings.command("config.show")
        found, origin = Config.model_validate(answer["config"]), {}
    else:
        found, origin = settings.loaded.config, settings.loaded.provenance
    default = flatten(Config())
    values = {
        name: {"value": value, "from": origin.get(name, "")}
        for name, value in flatten(found).items()
        if not changed or value != default[name]
    }

    def write(console: Console) -> None:
        for name, entry in values.items():
            source = entry["from"] if entry["from"] != "default" else ""
            console.print(f"{name} = {_value(entry['value'])}" + (f"    # {source}" if source else ""), markup=False)
        if key := origin.get("llm.api_key"):
            console.print(f"# the model's key comes from {key}", markup=False)

    emit(settings, {"options": values}, write)


@config.command()
@pass_settings
def reload(settings: Settings) -> None:
    """Gives the file to the running cluster: all of it or, with a mistake in it, nothing.

    Tells what changed, and which of it waits for a restart of `raydns node`.
    """
    from raydns.schemas.config import Config
    from raydns.schemas.config.load import diff, needs_restart

    new = settings.loaded.config
    old = Config.model_validate(settings.command("config.show")["config"])
    changes = [
        {"option": name, "old": before, "new": after, "restart": needs_restart(name)}
        for name, before, after in diff(old, new)
    ]
    answer = settings.command("config.reload", config=new.model_dump(mode="json"))
    data = {"changes": changes, **answer}

    def write(console: Console) -> None:
        for change in changes:
            wait = "    (takes a restart: raydns down, raydns up)" if change["restart"] else ""
            line = f"{change['option']}: {_value(change['old'])} -> {_value(change['new'])}{wait}"
            console.print(line, markup=False)
        for name, problem in answer.get("zone_problems", {}).items():
            note(f"zone {name} keeps its old state: {problem}")
        late = "" if answer.get("installed", True) else "; not every machine has confirmed it yet (raydns status)"
        console.print(f"reloaded, {len(changes)} options changed{late}")

    emit(settings, data, write)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        value = [item.model_dump(mode="json") if hasattr(item, "model_dump") else item for item in value]
    return to_json(value)
