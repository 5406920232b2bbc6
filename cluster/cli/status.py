"""``raydns status``: one picture of the machine and the cluster, from three control sockets; live with ``--watch``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

import click

from raydns.schemas.errors import RaydnsError, UnreachableError

from .output import console, emit, to_json
from .shared import RaydnsCommand, Settings, pass_settings

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

EVENTS_SHOWN: Final = 5
ASK_TIMEOUT_S: Final = 3.0
STATE_STYLES: Final = {"ready": "green", "starting": "yellow", "draining": "yellow", "lost": "red", "failed": "red"}


@click.command(cls=RaydnsCommand)
@click.option("--watch", "-w", is_flag=True, help="Stay, and show it anew every second, until Ctrl-C.")
@click.option("--interval", type=click.FloatRange(0.2, 60), default=1.0, show_default=True, metavar="S")
@pass_settings
def status(settings: Settings, watch: bool, interval: float) -> None:
    """Shows this machine, the cluster's machines and actors, rates, zones in trouble and what happened last."""
    if not watch:
        data = gather(settings)
        emit(settings, data, lambda out: out.print(picture(data)))
    elif settings.json:
        for data in _every(settings, interval):
            click.echo(to_json(data))
    else:
        _watch(settings, interval)


def gather(settings: Settings) -> dict[str, Any]:
    """What supervisor, ingress and agent say; who does not answer has ``problem`` instead.

    Raises:
        UnreachableError: none of the three is there.
    """
    directory = settings.state_dir
    places = {"node": directory.node_socket, "ingress": directory.ingress_socket, "agent": directory.agent_socket}
    data: dict[str, Any] = {}
    first: UnreachableError | None = None
    for name, place in places.items():
        try:
            data[name] = settings.call(place, "status", ASK_TIMEOUT_S)
        except UnreachableError as error:
            first = first or error
            data[name] = {"problem": error.message}
        except RaydnsError as error:
            data[name] = {"problem": str(error)}
    if first is not None and all(set(part) == {"problem"} for part in data.values()):
        raise first
    return data


def picture(data: dict[str, Any]) -> RenderableType:
    """The status for people: head lines, machines, actors, troubles, events."""
    from rich.console import Group

    cluster = data["agent"].get("cluster", {})
    parts: list[RenderableType] = ["\n".join(_head(data))]
    if machines := cluster.get("machines"):
        parts += ["", _table(machines, _MACHINE)]
    if actors := cluster.get("actors"):
        parts += ["", _table(actors, _ACTOR)]
    if troubles := list(_troubles(data, cluster)):
        parts += ["", "\n".join(troubles)]
    if events := cluster.get("events"):
        parts += ["", "\n".join(_event(event) for event in events[-EVENTS_SHOWN:])]
    return Group(*parts)


def _head(data: dict[str, Any]) -> Iterator[str]:
    node, ingress, agent = data["node"], data["ingress"], data["agent"]
    addresses = ", ".join(str(address) for address in node.get("addresses", []))
    yield f"machine   {_or(agent.get('machine') or ingress.get('machine'))}    answers on {_or(addresses)}"
    yield f"node      {_process(node)}"
    rates = (
        f"{ingress.get('queries_per_second', 0):.0f} queries/s, {ingress.get('misses_per_second', 0):.0f} misses/s, "
        f"{ingress.get('in_flight', 0):.0f} waiting, engine {_or(ingress.get('engine'))}"
    )
    yield f"ingress   {_process(ingress)}" + ("" if _gone(ingress) else f"    {rates}")
    version = ".".join(str(part) for part in agent.get("version", [])) or "none"
    yield f"agent     {_process(agent)}" + ("" if _gone(agent) else f"    state {version}")
    cluster = agent.get("cluster", {})
    if scale := cluster.get("scale"):
        counts = ", ".join(f"{kind} {count}" for kind, count in scale.items())
        yield f"cluster   wants {counts}; {cluster.get('zones', 0)} zones"


def _gone(part: dict[str, Any]) -> bool:
    return set(part) == {"problem"}


def _process(part: dict[str, Any]) -> str:
    if _gone(part):
        return f"[red]{_escape(part['problem'])}[/]"
    ready = part.get("ready", True)
    return f"pid {part.get('pid', '?')}, " + ("[green]ready[/]" if ready else "[yellow]not ready[/]")


def _troubles(data: dict[str, Any], cluster: dict[str, Any]) -> Iterator[str]:
    if problem := cluster.get("problem"):
        yield f"[yellow]controller: {_escape(problem)}; nothing changes until it is back, answers go on[/]"
    problems = data["agent"].get("problems", {})
    for name, problem in (
        problems.items() if isinstance(problems, dict) else ((str(i), p) for i, p in enumerate(problems))
    ):
        yield f"[yellow]{_escape(name)}: {_escape(problem)}[/]"
    for name, problem in cluster.get("zone_problems", {}).items():
        yield f"[red]zone {_escape(name)}: {_escape(problem)}[/]"


def _event(event: dict[str, Any]) -> str:
    said = " ".join(str(event.get(key, "")) for key in ("what", "actor", "why") if event.get(key))
    return _escape(f"{event.get('ago_s', 0):>8.0f} s ago  {said}")


_MACHINE: Final = {
    "machine": lambda m: _escape(m.get("name")),
    "alive": lambda m: "yes" if m.get("alive") else "[red]no[/]",
    "ingress": lambda m: "[green]ready[/]" if m.get("ingress_ready") else "[yellow]not ready[/]",
    ">queries/s": lambda m: f"{m.get('queries_per_second', 0):.0f}",
    "state": lambda m: ".".join(str(part) for part in m.get("version", [])),
}
_ACTOR: Final = {
    "actor": lambda a: _escape(a.get("name")),
    "machine": lambda a: _escape(a.get("machine")),
    "state": lambda a: _styled(str(a.get("state", ""))),
    ">since s": lambda a: f"{a.get('since_s', 0):.0f}",
    ">in flight": lambda a: _number(a.get("statistics", {}).get("in_flight")),
    "problem": lambda a: _escape(a.get("problem")),
}


def _table(rows: list[dict[str, Any]], columns: dict[str, Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for title in columns:
        table.add_column(title.removeprefix(">"), justify="right" if title.startswith(">") else "left")
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    return table


def _styled(state: str) -> str:
    style = STATE_STYLES.get(state)
    return f"[{style}]{_escape(state)}[/]" if style else _escape(state)


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.0f}"


def _or(text: Any) -> str:
    return _escape(text) if text else "?"


def _escape(text: Any) -> str:
    from rich.markup import escape

    return escape("" if text is None else str(text))


def _every(settings: Settings, interval_s: float) -> Iterator[dict[str, Any]]:
    """A status an interval, for ever; a node that is gone for a moment is told, not an end."""
    while True:
        try:
            yield gather(settings)
        except UnreachableError as error:
            gone = {"problem": error.message}
            yield {"node": gone, "ingress": gone, "agent": gone}
        time.sleep(interval_s)


def _watch(settings: Settings, interval_s: float) -> None:
    from rich.live import Live

    out: Console = console()
    with Live(console=out, auto_refresh=False, screen=out.is_terminal) as live:
        for data in _every(settings, interval_s):
            live.update(picture(data), refresh=True)
