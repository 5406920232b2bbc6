"""``raydns node``: the supervisor of one machine, as systemd, a container or `ray up` start it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from . import life
from .output import emit
from .shared import COMMAND_TIMEOUT_S, RaydnsGroup, Settings, pass_settings

if TYPE_CHECKING:
    from rich.console import Console


@click.group(cls=RaydnsGroup)
def node() -> None:
    """The supervisor of this machine."""


@node.command()
@click.option("--foreground", is_flag=True, help="Become the supervisor (systemd, containers).")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 600), default=60.0, show_default=True, metavar="S")
@pass_settings
def start(settings: Settings, foreground: bool, timeout_s: float) -> None:
    """Starts this machine's supervisor and returns when DNS is answered; may be said twice.

    The actors follow by themselves; `raydns up` waits for them too.
    """
    if foreground:
        life.serve(settings)
        return
    found = life.start(settings, timeout_s)
    emit(settings, found, lambda console: console.print("runs already" if found.get("already") else "started"))


@node.command()
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 600), default=90.0, show_default=True, metavar="S")
@click.option("--now", is_flag=True, help="Without draining.")
@pass_settings
def stop(settings: Settings, timeout_s: float, now: bool) -> None:
    """Drains this machine and ends what runs on it; may be said twice."""
    life.say_stopped(settings, life.stop(settings, timeout_s, immediate=now))


@node.command()
@pass_settings
def takeover(settings: Settings) -> None:
    """Puts a new ingress in place of the running one, without losing a query: after an upgrade, for example."""
    found = settings.call(settings.state_dir.node_socket, "takeover", COMMAND_TIMEOUT_S)
    emit(settings, found, lambda console: console.print(f"ingress {found.get('number')} runs as {found.get('pid')}"))


@node.command()
@pass_settings
def status(settings: Settings) -> None:
    """Shows what the supervisor runs, with process ids, phases and restarts."""
    data = settings.call(settings.state_dir.node_socket, "status")
    emit(settings, data, lambda console: _write(console, data))


def _write(console: Console, data: dict[str, Any], indent: str = "") -> None:
    for key, value in data.items():
        if isinstance(value, dict):
            console.print(f"{indent}{key}")
            _write(console, value, indent + "  ")
        else:
            text = ", ".join(str(item) for item in value) if isinstance(value, list) else value
            console.print(f"{indent}{key:<12}{text}", markup=False)
