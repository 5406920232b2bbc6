"""Rows, ratios, rooms, memory: what is written and what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from raydns.schemas.batch import Room, stamps
from raydns.schemas.errors import BatchError


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one work at one server."""

    queries_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_query: float
    memory_mb: float
    lost: int
    errors: int
    """Answers that are neither NOERROR nor NXDOMAIN."""


@dataclass(frozen=True, slots=True)
class Row:
    """Medians over the rounds."""

    work: str
    server: str
    queries_per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us_per_query: float
    memory_mb: float


def row(work: str, server: str, samples: Sequence[Sample]) -> Row:
    """The medians of a server's rounds."""
    return Row(
        work,
        server,
        round(median(s.queries_per_second for s in samples), 1),
        round(median(s.p50_ms for s in samples), 3),
        round(median(s.p99_ms for s in samples), 3),
        round(median(s.cpu_us_per_query for s in samples), 2),
        round(median(s.memory_mb for s in samples), 1),
    )


def ratios(rows: Sequence[Row], ours: str = "raydns") -> list[dict[str, Any]]:
    """For each work and peer: our rate, CPU and tail as multiples of the peer's."""
    found: list[dict[str, Any]] = []
    for mine in (r for r in rows if r.server == ours):
        for peer in (r for r in rows if r.work == mine.work and r.server != ours):
            found.append(
                {
                    "work": mine.work,
                    "peer": peer.server,
                    "queries_per_second": _over(mine.queries_per_second, peer.queries_per_second),
                    "cpu_us_per_query": _over(mine.cpu_us_per_query, peer.cpu_us_per_query),
                    "p99_ms": _over(mine.p99_ms, peer.p99_ms),
                }
            )
    return found


def _over(one: float, other: float) -> float | None:
    return round(one / other, 3) if other else None


def rooms(recent: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Where queries spent their time: per path of rooms, the median time in each and in it alone.

    A room's time holds that of the rooms above it; ``own`` is the difference, what the room and the way from it to
    the next one cost.
    """
    paths: dict[tuple[str, ...], list[list[int]]] = {}
    for query in recent:
        try:
            met = stamps(query["rooms"])
        except BatchError:
            continue
        names = tuple(Room(stamp.room).name.lower() for stamp in met)
        paths.setdefault(names, []).append([stamp.duration_us for stamp in met])
    found: list[dict[str, Any]] = []
    for names, times in sorted(paths.items(), key=lambda item: -len(item[1])):
        totals = [median(column) for column in zip(*times, strict=True)]
        owns = [
            median(own)
            for own in zip(*([a - b for a, b in zip(t, [*t[1:], 0], strict=True)] for t in times), strict=True)
        ]
        found.append(
            {
                "queries": len(times),
                "rooms": [
                    {"room": room, "total_us": round(total), "own_us": round(own)}
                    for room, total, own in zip(names, totals, owns, strict=True)
                ],
            }
        )
    return found


def document(
    rows: Sequence[Row],
    samples: dict[tuple[str, str], list[Sample]],
    *,
    rooms_by_work: dict[str, list[dict[str, Any]]],
    cpu_by_work: dict[str, list[dict[str, Any]]],
    memory: list[dict[str, Any]],
    conditions: dict[str, Any],
) -> dict[str, Any]:
    """All that is written to build/bench.json."""
    return {
        "rows": [asdict(r) for r in rows],
        "ratios": ratios(rows),
        "rooms": rooms_by_work,
        "cpu_by_process": cpu_by_work,
        "memory_at_rest": memory,
        "memory_at_rest_mb": round(sum(m["pss_mb"] for m in memory), 1),
        "rounds": [
            {"work": work, "server": server, **asdict(sample)}
            for (work, server), found in samples.items()
            for sample in found
        ],
        "conditions": conditions,
    }


def table(found: dict[str, Any]) -> str:
    """The same for a terminal."""
    lines = [f"{'work':<16}{'server':<10}{'queries/s':>11}{'p50 ms':>9}{'p99 ms':>9}{'CPU µs':>9}{'MB':>8}"]
    for r in found["rows"]:
        lines.append(
            f"{r['work']:<16}{r['server']:<10}{r['queries_per_second']:>11,.0f}{r['p50_ms']:>9.2f}"
            f"{r['p99_ms']:>9.2f}{r['cpu_us_per_query']:>9.1f}{r['memory_mb']:>8.0f}"
        )
    if found["ratios"]:
        lines += ["", "raydns as a multiple of"]
        lines.append(f"{'work':<16}{'peer':<10}{'queries/s':>11}{'p99':>9}{'CPU':>9}")
        for r in found["ratios"]:
            figures = [r["queries_per_second"], r["p99_ms"], r["cpu_us_per_query"]]
            text = [f"{'–' if f is None else format(f, '.2f')}" for f in figures]
            lines.append(f"{r['work']:<16}{r['peer']:<10}{text[0]:>11}{text[1]:>9}{text[2]:>9}")
    for work, paths in found["rooms"].items():
        lines += ["", f"Rooms of the last queries of {work} (median µs: in all / alone)"]
        for path in paths[:4]:
            met = " → ".join(f"{m['room']} {m['total_us']:,}/{m['own_us']:,}" for m in path["rooms"])
            lines.append(f"  {path['queries']:>5} × {met}")
    for work, spent in found["cpu_by_process"].items():
        lines += ["", f"CPU of a query of {work} by process (µs)"]
        lines += [f"  {entry['cpu_us_per_query']:>8.1f} {entry['process']}" for entry in spent[:8]]
    if found["memory_at_rest"]:
        lines += ["", f"Memory of the cluster at rest: {found['memory_at_rest_mb']:,.0f} MB (PSS)"]
        lines += [f"  {m['pss_mb']:>8.1f} {m['process']}" for m in found["memory_at_rest"]]
    return "\n".join(lines)
