"""``raydns query NAME TYPE``: asks the node as a client does; with ``--trace``, which rooms the question met."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import click

from raydns.schemas.batch import Outcome, Room, stamps
from raydns.schemas.errors import BatchError, CommandError, RaydnsError

from . import message
from .output import emit, note
from .place import server_of
from .shared import RaydnsCommand, Settings, pass_settings

if TYPE_CHECKING:
    from rich.console import Console

TRACE_WAIT_S: Final = 2.0
"""How long to wait until the ingress has noted a query that it has answered already."""
TRACE_PAUSE_S: Final = 0.02


@click.command(cls=RaydnsCommand)
@click.argument("name")
@click.argument("qtype", metavar="[TYPE]", default="A")
@click.option("--trace", is_flag=True, help="Which rooms the query met, and how long each took.")
@click.option("--server", metavar="ADDRESS[:PORT]", help="Another server than this node.")
@click.option("--tcp", is_flag=True, help="Over TCP from the start.")
@click.option("--dnssec", is_flag=True, help="Ask for signatures (DO).")
@click.option("--norecurse", is_flag=True, help="Only what is held already (RD=0).")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0.1, 120), default=10.0, show_default=True, metavar="S")
@pass_settings
def query(  # noqa: PLR0917 - one parameter an option
    settings: Settings,
    name: str,
    qtype: str,
    trace: bool,
    server: str | None,
    tcp: bool,
    dnssec: bool,
    norecurse: bool,
    timeout_s: float,
) -> None:
    """Asks this node for NAME, as any client does.

    The exit code is 0 for every answer, whatever its response code: that is part of the answer.
    """
    wanted, number = message.wire_name(name), message.type_number(qtype)
    if trace and server:
        raise CommandError("--trace asks this node's ingress, not another server's", where="query")
    address, port = server_of(settings, server)
    context = message.Trace(secrets.token_bytes(16), secrets.token_bytes(8)) if trace else None
    ident = secrets.randbelow(1 << 16)
    question = message.build(ident, wanted, number, trace=context, do=dnssec, rd=not norecurse)
    began = time.perf_counter()
    answer, transport = message.ask(address, port, question, tcp=tcp, timeout_s=timeout_s)
    duration_us = round((time.perf_counter() - began) * 1e6)
    data = message.read(answer)
    data |= {"server": address, "port": port, "transport": transport, "duration_us": duration_us}
    if context is not None:
        data["trace"] = _trace(settings, context)
    emit(settings, data, lambda console: _write(console, data))


def _trace(settings: Settings, context: message.Trace) -> dict[str, Any]:
    """Asks the ingress for the rooms of our trace."""
    trace_id = context.trace_id.hex()
    deadline = time.monotonic() + TRACE_WAIT_S
    queries: list[dict[str, Any]] = []
    problem = "the ingress did not note it: its class may lack the right `trace`, or telemetry.trace.recent is 0"
    while not queries and time.monotonic() < deadline:
        try:
            answer = settings.call(settings.state_dir.ingress_socket, "recent", limit=16, trace_id=trace_id)
        except RaydnsError as error:
            problem = str(error)
            break
        queries = answer.get("queries", [])
        if not queries:
            time.sleep(TRACE_PAUSE_S)
    if not queries:
        return {"trace_id": trace_id, "rooms": [], "problem": problem}
    # A truncated answer over UDP and the whole one over TCP are two queries of one trace; the last one counts.
    newest = max(queries, key=lambda one: int(one.get("time_us", 0)))
    return {"trace_id": trace_id, "duration_us": newest.get("duration_us", 0), "rooms": rooms_of(newest)}


def rooms_of(recent: dict[str, Any]) -> list[dict[str, Any]]:
    """The rooms of a remembered query, in the order met: name, instance, outcome, offset and duration in µs."""
    raw = recent.get("rooms", b"")
    try:
        found = stamps(raw if isinstance(raw, bytes) else bytes.fromhex(raw))
    except (BatchError, ValueError, TypeError):
        return []
    zero = min((stamp.start_us for stamp in found), default=0)
    return [
        {
            "room": _name(Room, stamp.room),
            "instance": stamp.instance,
            "outcome": _name(Outcome, stamp.outcome),
            "at_us": stamp.start_us - zero,
            "duration_us": stamp.duration_us,
        }
        for stamp in found
    ]


def _name(kind: type[Room] | type[Outcome], number: int) -> str:
    try:
        return kind(number).name.lower()
    except ValueError:
        return str(number)


def _write(console: Console, data: dict[str, Any]) -> None:
    flags = " ".join(data["flags"])
    milliseconds = data["duration_us"] / 1000
    head = f"; {data['rcode']} [{flags}] {data['size']} octets, {data['transport']}, {milliseconds:.2f} ms"
    console.print(head, markup=False)
    for error in data["errors"]:
        console.print(f"; {error}", markup=False)
    for section in ("answer", "authority", "additional"):
        for line in data[section]:
            console.print(line if section == "answer" else f"; {section}: {line}", markup=False)
    if "trace" in data:
        _write_trace(console, data["trace"])


def _write_trace(console: Console, trace: dict[str, Any]) -> None:
    from rich.table import Table

    console.print(f"; trace {trace['trace_id']}", markup=False)
    if problem := trace.get("problem"):
        note(f"no rooms: {problem}")
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("room")
    table.add_column("outcome")
    table.add_column("at µs", justify="right")
    table.add_column("took µs", justify="right")
    for room in trace["rooms"]:
        name = room["room"] if room["room"] == "ingress" else f"{room['room']}:{room['instance']}"
        table.add_row(name, room["outcome"], str(room["at_us"]), str(room["duration_us"]))
    console.print(table)
