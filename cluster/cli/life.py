"""``raydns run``, ``up`` and ``down``: a machine in the foreground, in the background, and its end."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from raydns.nodes.paths import StateDir
from raydns.schemas.errors import RaydnsError, UnreachableError

from .output import emit, note, to_json
from .place import from_status
from .shared import STATE_DIR_VARIABLE, RaydnsCommand, Settings, pass_settings

if TYPE_CHECKING:
    from raydns.nodes.supervisor.plan import RayPlan
    from raydns.schemas.config import Config

PAUSE_S: Final = 0.1
ANNOUNCE_WAIT_S: Final = 120.0
"""After which `run` tells what to try although something is missing."""


@click.command(cls=RaydnsCommand)
@pass_settings
def run(settings: Settings) -> None:
    """Runs this machine in the foreground: DNS, Ray and all actors; Ctrl-C drains and ends them."""

    def announce(status: dict[str, Any]) -> None:
        # In a thread, since this is called on the supervisor's event loop; a daemon, since it must not hold its end.
        threading.Thread(target=_announce, args=(settings, status), daemon=True).start()

    serve(settings, on_ready=announce)


@click.command(cls=RaydnsCommand)
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 600), default=90.0, show_default=True, metavar="S")
@click.option("--dns-only", is_flag=True, help="Return when DNS is answered, without waiting for actors and zones.")
@pass_settings
def up(settings: Settings, timeout_s: float, dns_only: bool) -> None:
    """Starts this machine in the background and returns when it answers; does nothing where it already does."""
    deadline = time.monotonic() + timeout_s
    status = start(settings, timeout_s)
    if not dns_only:
        wait_for_actors(settings, deadline, timeout_s)
    word = "answers already" if status.get("already") else "answers"
    listed = ", ".join(str(address) for address in status.get("addresses", []))
    emit(settings, status, lambda console: console.print(f"{word} on {listed}", markup=False))


@click.command(cls=RaydnsCommand)
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 600), default=90.0, show_default=True, metavar="S")
@click.option("--now", is_flag=True, help="Without draining: unanswered queries are dropped.")
@pass_settings
def down(settings: Settings, timeout_s: float, now: bool) -> None:
    """Drains this machine and ends everything on it; does nothing where nothing runs."""
    say_stopped(settings, stop(settings, timeout_s, immediate=now))


def say_stopped(settings: Settings, stopped: bool) -> None:
    """The result of `down` and `node stop`."""
    data = {"stopped": stopped, "state_dir": str(settings.state_dir.path)}
    emit(settings, data, lambda console: console.print("stopped" if stopped else "nothing runs here"))


def serve(settings: Settings, on_ready: Callable[[dict[str, Any]], None] | None = None) -> None:
    """Becomes the supervisor of this machine until it is told to stop.

    Raises:
        RaydnsError: configuration, state directory or a socket cannot be used.
    """
    from raydns.nodes import logs
    from raydns.nodes.supervisor import main as supervisor

    config, path, plan = _prepare(settings)
    logs.setup(config.telemetry.log, "node")
    code = supervisor.run(config, path, ray=plan, on_ready=on_ready)
    if code:
        raise click.exceptions.Exit(code)


def start(settings: Settings, timeout_s: float) -> dict[str, Any]:
    """Starts the supervisor in the background and waits until DNS is answered; its status, and ``already``.

    Raises:
        RaydnsError: why it did not start.
    """
    from raydns.nodes.supervisor import main as supervisor

    config, path, plan = _prepare(settings)
    return supervisor.start(config, path, ray=plan, timeout_s=timeout_s)


def _prepare(settings: Settings) -> tuple[Config, Path | None, RayPlan]:
    """What the supervisor needs: the configuration, where it came from, and how Ray runs."""
    from raydns.cluster.start.plan import ray_plan

    config: Config = settings.loaded.config
    for warning in settings.loaded.warnings:
        note(f"warning: {warning}")
    state_dir = StateDir(config.server.state_dir).create()
    os.environ[STATE_DIR_VARIABLE] = str(state_dir.path)  # the bootstrap loads the same file: for the same directory
    path = settings.config_path.absolute() if settings.config_path else None
    return config, path, ray_plan(config, state_dir, path)


def stop(settings: Settings, timeout_s: float, *, immediate: bool = False) -> bool:
    """Ends this machine's node; False: there was none."""
    from raydns.nodes.supervisor import main as supervisor

    return supervisor.stop(settings.state_dir, immediate=immediate, timeout_s=timeout_s)


def wait_for_actors(settings: Settings, deadline: float, timeout_s: float) -> None:
    """Waits for all actors and zones that are wanted; raises ``UnreachableError`` at the monotonic deadline."""
    while missing := what_is_missing(settings):
        if time.monotonic() >= deadline:
            hint = f"it goes on trying: raydns status; logs are in {settings.state_dir.logs}"
            said = f"DNS is answered, but not everything is there after {timeout_s:g} s: {missing}"
            raise UnreachableError(said, where="raydns up", hint=hint) from TimeoutError()
        time.sleep(PAUSE_S)


def what_is_missing(settings: Settings) -> str:
    """What this node still lacks beside DNS itself; empty: nothing."""
    try:
        status = settings.call(settings.state_dir.agent_socket, "status")
    except RaydnsError as error:
        return f"the agent does not answer: {error.message}"
    cluster = status.get("cluster", {})
    return missing_actors(cluster) or missing_zones(cluster, len(settings.loaded.config.zones.files))


def missing_actors(cluster: dict[str, Any]) -> str:
    """Which actors a cluster's status still lacks; empty: all that are wanted are ready."""
    if problem := cluster.get("problem"):
        return f"the controller does not answer: {problem}"
    ready: dict[str, int] = {}
    for actor in cluster.get("actors", []):
        if actor.get("state") == "ready":
            ready[actor["kind"]] = ready.get(actor["kind"], 0) + 1
    lacking = [
        f"{ready.get(kind, 0)} of {count} {kind} actors"
        for kind, count in cluster.get("scale", {"query": 1}).items()
        if ready.get(kind, 0) < count
    ]
    return f"ready are only {', '.join(lacking)}" if lacking else ""


def missing_zones(cluster: dict[str, Any], wanted: int) -> str:
    """How many zones of the configuration are not loaded yet; one whose file is faulty is not waited for."""
    loaded, faulty = int(cluster.get("zones", 0)), len(cluster.get("zone_problems", {}))
    return f"{loaded} of {wanted} zones are loaded" if loaded + faulty < wanted else ""


def _announce(settings: Settings, status: dict[str, Any]) -> None:
    """Says that DNS is there, and, once what one may try will be answered, what to try."""
    if settings.json:
        click.echo(to_json(status))
        return
    listed = ", ".join(str(address) for address in status.get("addresses", []))
    click.echo(f"raydns listens on {listed}; the actors follow in some seconds. Ctrl-C drains and ends everything.")
    sys.stdout.flush()
    deadline = time.monotonic() + ANNOUNCE_WAIT_S
    while (missing := what_is_missing(settings)) and time.monotonic() < deadline:
        time.sleep(PAUSE_S)
    if missing:
        note(f"not everything is there after {ANNOUNCE_WAIT_S:g} s: {missing}; logs: {settings.state_dir.logs}")
    click.echo(banner(settings, status))
    sys.stdout.flush()


def banner(settings: Settings, status: dict[str, Any]) -> str:
    """What somebody who has just said `make run` wants to know."""
    pairs = from_status(status) or [("127.0.0.1", 1053)]
    host, port = next(((host, port) for host, port in pairs if ":" not in host), pairs[0])
    lines = [f"\nraydns answers on {', '.join(str(a) for a in status.get('addresses', []))}. Try:\n"]
    lines += [f"  dig @{host} -p {port} {question}" for question in questions(settings.loaded.config)]
    if web := status.get("web"):
        lines.append(f"\nStatus page: http://{web}/    metrics: http://{web}/metrics")
    lines.append(f"From another terminal: raydns status --watch --state-dir {settings.state_dir.path}\n")
    return "\n".join(lines)


def questions(config: Config) -> list[str]:
    """Three questions that this configuration answers."""
    found: list[str] = []
    if config.zones.files:
        apex = config.zones.files[0].name
        found += [f"www.{apex} A", f"{apex} MX"]
    if config.forward.rules:
        found.append("www.example.com A")
    if config.llm.enabled and config.llm.catch_all == "stub":
        found.append("what.is.the.capital.of.france TXT +timeout=10")
    elif config.llm.enabled and config.llm.zones:
        found.append(f"what.is.the.capital.of.france.{config.llm.zones[0]} TXT +timeout=10")
    return [*found, "health.raydns CH TXT", "id.server CH TXT", "version.bind CH TXT"][:3]
