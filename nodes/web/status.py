"""``/status``: one picture of the machine and its cluster, made of what the sources last said; pure functions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from raydns.nodes.streams.probe import PROBE_NAME
from raydns.schemas import batch, dns, names
from raydns.schemas.batch import Outcome, Room
from raydns.schemas.cluster import Snapshot
from raydns.schemas.errors import BatchError

from .rates import ActorRates, History
from .sources import Source, Sources

TEXT_MAX: Final = 300
ROWS_MAX: Final = 1000

_TYPES: Final = {int(member): member.name for member in dns.Type}
_RCODES: Final = {int(member): member.name for member in dns.Rcode}
_TRANSPORTS: Final = {int(member): member.name for member in dns.Transport}
_PROBE: Final = names.to_text(PROBE_NAME)


def build(
    sources: Sources,
    history: History,
    actor_rates: ActorRates,
    *,
    machine: str,
    started_s: float,
    now: float,
    wall: float,
) -> dict[str, Any]:
    """The whole status as JSON can carry it.

    Args:
        sources: what the other processes last said.
        history: readings of the ingress.
        actor_rates: work a second of each actor.
        machine: this machine's name, where nobody knows better.
        started_s: monotonic time of our own start.
        now: monotonic time.
        wall: Unix time.
    """
    agent, ingress, node = sources.agent.value, sources.ingress.value, sources.node.value
    rates = history.rates()
    answered = sum(rates.answers.values())
    here = answered - rates.answers.get("up", 0.0) - rates.answers.get("failed", 0.0)
    status = {
        "time": wall,
        "machine": _text(agent.get("machine") or ingress.get("machine") or machine),
        "uptime_s": round(now - started_s, 1),
        "node": _part(sources.node, node),
        "ingress": _part(sources.ingress, ingress),
        "engine": _text(ingress.get("engine", "")),
        "agent": {
            **_problem(sources.agent),
            "pid": _number(agent.get("pid")),
            "version": agent.get("version"),
            "problems": _problems(agent.get("problems")),
        },
        "staleness_s": staleness(sources.agent),
        "cluster": cluster(sources, actor_rates),
        "rates": {
            "queries_per_second": round(rates.queries_per_second, 2),
            "answers": rates.answers,
            "responses": rates.responses,
            "latency_ms": {"p50": rates.p50_ms, "p95": rates.p95_ms, "p99": rates.p99_ms},
            "answered_here": round(here / answered, 4) if answered else None,
            "in_flight": _number(ingress.get("in_flight")),
        },
        "history": history.points(now),
        "recent": [recent(query) for query in sources.recent.value if query.get("name") != _PROBE],
        "sources": {source.name: {**_problem(source), "age_s": _rounded(source.age_s)} for source in sources.all},
    }
    return plain(status)  # type: ignore[no-any-return]


def staleness(agent: Source[dict[str, Any]]) -> float | None:
    """Seconds since the machine's agent last heard the controller; grows while the agent itself is gone."""
    said = _number(agent.value.get("staleness_s"))
    if said is None or agent.age_s is None:
        return None
    return round(said + agent.age_s, 1)


def cluster(sources: Sources, actor_rates: ActorRates) -> dict[str, Any]:
    """Machines and actors as the controller sees them; without it, as the snapshot on disk remembers them."""
    told = sources.agent.value.get("cluster")
    live = told if isinstance(told, dict) else {}
    snapshot = sources.known.value
    problem = _text(live.get("problem", "")) or ("" if sources.agent.up else sources.agent.problem)
    machines = _rows(live.get("machines"))
    actors = _rows(live.get("actors"))
    if not actors and snapshot is not None:
        machines, actors = _remembered(snapshot)
    statistics = sources.agent.value.get("actors")
    for actor in actors:
        name = str(actor.get("name", ""))
        if isinstance(statistics, Mapping) and isinstance(statistics.get(name), Mapping):
            actor["statistics"] = statistics[name]
        actor["work_per_second"] = actor_rates.of(name)
    ring = live.get("ring")
    if not isinstance(ring, Mapping) and snapshot is not None:
        ring = _shares(snapshot)
    zones = _number(live.get("zones"))
    return {
        "problem": problem,
        "remembered": not live.get("actors"),
        "machines": machines,
        "actors": actors,
        "ring": ring if isinstance(ring, Mapping) else {},
        "zones": int(zones) if zones is not None else (len(snapshot.zones) if snapshot is not None else None),
        "zone_problems": _problems(live.get("zone_problems")),
        "scale": live.get("scale") or (msgspec.to_builtins(snapshot.scale) if snapshot is not None else {}),
        "events": _rows(live.get("events"))[-20:],
        "version": live.get("version") or (list(snapshot.version) if snapshot is not None else None),
    }


def recent(query: Mapping[str, Any]) -> dict[str, Any]:
    """One remembered query with the rooms it met: offsets and durations in µs."""
    rooms = query.get("rooms", b"")
    try:
        stamps = batch.stamps(bytes.fromhex(rooms) if isinstance(rooms, str) else bytes(rooms))
    except (BatchError, ValueError, TypeError):
        stamps = []
    zero = min((stamp.start_us for stamp in stamps), default=0)
    qtype = query.get("qtype")
    rcode = query.get("rcode")
    transport = query.get("transport")
    return {
        "time": (_number(query.get("time_us")) or 0.0) / 1e6,
        "name": _text(query.get("name", "")),
        "type": _named(_TYPES, qtype, "TYPE"),
        "rcode": _named(_RCODES, rcode, "RCODE"),
        "source": _text(query.get("source", "")),
        "transport": _named(_TRANSPORTS, transport, "").lower(),
        "trace_id": _text(query.get("trace_id", "")),
        "duration_us": _number(query.get("duration_us")) or 0,
        "rooms": [
            {
                "room": Room(stamp.room).name.lower() if stamp.room in _ROOMS else str(stamp.room),
                "outcome": Outcome(stamp.outcome).name.lower() if stamp.outcome in _OUTCOMES else str(stamp.outcome),
                "instance": stamp.instance,
                "at_us": stamp.start_us - zero,
                "duration_us": stamp.duration_us,
            }
            for stamp in stamps[: batch.ROOMS_MAX]
        ],
    }


_ROOMS: Final = frozenset(int(room) for room in Room)
_OUTCOMES: Final = frozenset(int(outcome) for outcome in Outcome)


def plain(value: Any, depth: int = 8) -> Any:
    """Anything as JSON can carry it: bounded, no NaN, octets as hexadecimal, lone surrogates replaced."""
    if value is None or isinstance(value, bool | int):
        return value if not isinstance(value, int) or abs(value) < 1 << 53 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value[: TEXT_MAX // 2]).hex()
    if depth <= 0:
        return "…"
    if isinstance(value, Mapping):
        return {_text(key): plain(item, depth - 1) for key, item in list(value.items())[:ROWS_MAX]}
    if isinstance(value, list | tuple):
        return [plain(item, depth - 1) for item in value[:ROWS_MAX]]
    return _text(value)


def _remembered(snapshot: Snapshot) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    machines = [{"name": m.name, "node": m.node, "alive": m.alive, "version": None} for m in snapshot.machines]
    actors = [
        {"name": e.actor, "kind": e.kind, "machine": e.machine, "state": "unknown", "problem": "", "statistics": {}}
        for e in sorted(snapshot.endpoints, key=lambda e: (e.kind, e.index))
    ]
    return machines, actors


def _shares(snapshot: Snapshot) -> dict[str, float]:
    """Each shard's share of the ring."""
    bounds, first = snapshot.ring.bounds, snapshot.ring.first
    found: dict[str, float] = {}
    for index, bound in enumerate(bounds):
        width = (bound - bounds[index - 1]) % (1 << 64) or (1 << 64)
        found[str(first[index])] = found.get(str(first[index]), 0.0) + width / (1 << 64)
    return {shard: round(share, 4) for shard, share in found.items()}


def _part(source: Source[dict[str, Any]], value: Mapping[str, Any]) -> dict[str, Any]:
    return {**value, "up": source.up, "problem": source.problem or _text(value.get("problem", ""))}


def _problem(source: Source[Any]) -> dict[str, Any]:
    return {"up": source.up, "problem": source.problem}


def _problems(value: object) -> dict[str, str]:
    """Problems by what they belong to, whether they came as a map or a list."""
    if isinstance(value, Mapping):
        return {_text(key): _text(problem) for key, problem in value.items()}
    if isinstance(value, list | tuple):
        return {str(index): _text(problem) for index, problem in enumerate(value)}
    return {}


def _rows(value: object) -> list[dict[str, Any]]:
    return [dict(row) for row in value if isinstance(row, Mapping)] if isinstance(value, list | tuple) else []


def _named(known: Mapping[int, str], number: object, prefix: str) -> str:
    if isinstance(number, int):
        return known.get(number, f"{prefix}{number}")
    return _text(number if number is not None else "")


def _number(value: object) -> float | None:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _text(value: object) -> str:
    return str(value)[:TEXT_MAX].encode("utf-8", "backslashreplace").decode()
