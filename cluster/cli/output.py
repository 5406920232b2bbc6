"""What commands print: results on standard output, errors on standard error, both as JSON where that is wanted."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from raydns.schemas.errors import RaydnsError

if TYPE_CHECKING:
    from rich.console import Console

    from .shared import Settings


def emit(settings: Settings, data: Mapping[str, Any], show: Callable[[Console], None]) -> None:
    """Prints a result: ``data`` as JSON, or what ``show`` writes for people."""
    if settings.json:
        click.echo(to_json(data))
    else:
        show(console())


def console() -> Console:
    """Where people read; without colours and cut lines where it is no terminal."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(file=sys.stdout, highlight=False, no_color=True, width=160, soft_wrap=True)


def note(text: str) -> None:
    """A remark beside the result, on standard error."""
    click.echo(f"raydns: {text}", err=True)


def to_json(data: Any) -> str:
    """JSON with octets in hexadecimal."""
    return json.dumps(data, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return str(value)


def emit_error(error: BaseException, *, as_json: bool) -> None:
    """Prints an error: ``raydns: where: message`` and a hint; or as JSON."""
    told = error_dict(error)
    if as_json:
        click.echo(to_json({"error": told}), err=True)
        return
    place = f"{told['where']}: " if told["where"] else ""
    click.echo(f"raydns: {place}{told['message']}", err=True)
    if told["hint"]:
        click.echo(f"  hint: {told['hint']}", err=True)


def error_dict(error: BaseException) -> dict[str, Any]:
    """Code, message, place and hint of any error; problems of a configuration one by one."""
    if isinstance(error, RaydnsError):
        told: dict[str, Any] = dict(error.as_dict())
        if problems := getattr(error, "problems", ()):
            told["problems"] = [p.as_dict() if hasattr(p, "as_dict") else p for p in problems]
        return told
    if isinstance(error, click.ClickException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else ""
        message = error.format_message().removesuffix(".")
        hint = f"{command} --help" if command else "raydns --help"
        return _told("command", message, command.removeprefix("raydns").strip(), hint)
    if isinstance(error, OSError):
        return _told("os", error.strerror or str(error), str(error.filename or ""), "")
    hint = "this is a fault of raydns; RAYDNS_DEBUG=1 shows where, please report it"
    return _told("unexpected", f"{type(error).__name__}: {error}", "", hint)


def _told(code: str, message: str, where: str, hint: str) -> dict[str, Any]:
    return {"code": code, "message": message, "where": where, "hint": hint}
