"""The run: starts all servers side by side, asks them in interleaved rounds, writes and prints what was measured.

Interleaved, because a shared machine is never the same for two minutes: whatever disturbs a round disturbs all
servers in it, so that ratios hold where absolute figures do not. All servers stay up during the whole run.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import processes
from .load import LoadError, run
from .report import Row, Sample, document, rooms, row, table
from .servers import PEERS, Nsd, Raydns, Server, ServerError
from .works import Work, names_file, works

REST_S = 5.0
ROOMS_MAX = 256


def main(argv: list[str] | None = None) -> int:
    """The command; 0: measured, 1: something could not be started or asked."""
    options = _options(argv)
    # `make` and a CI runner end us by SIGTERM: what was started must be stopped then, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    try:
        found = measure(options, folder)
    except (ServerError, LoadError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))
    print(f"\nwritten to {options.output}")
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("build/bench.json"), help="where the result goes")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each work at each server; medians count")
    parser.add_argument("--servers", default="raydns,unbound,dnsmasq,coredns", help="which, of those installed")
    parser.add_argument("--works", default="", help="which works; empty: all")
    parser.add_argument("--seed", type=int, default=0, help="of the names; 0: from the clock")
    options = parser.parse_args(argv)
    if options.rounds < 1 or options.seconds <= 0:
        parser.error("at least one round of more than 0 seconds")
    return options


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Everything between starting and stopping the servers."""
    wanted = options.servers.split(",")
    chosen = [w for w in works(options.seconds) if not options.works or w.name in options.works.split(",")]
    every: list[type[Server]] = [Raydns, *PEERS]
    kinds = [kind for kind in every if kind.name in wanted and kind.available()]
    for name in wanted:
        if name not in {k.name for k in kinds}:
            print(f"bench: {name} is not installed here; left out", file=sys.stderr)
    rng = random.Random(options.seed or time.time_ns())
    upstream = Nsd(folder / "nsd")
    servers: list[Server] = []
    try:
        upstream.start(0)
        for kind in kinds:
            print(f"starting {kind.name} …", file=sys.stderr)
            server = kind(folder / kind.name)
            servers.append(server)
            server.start(upstream.port)
        time.sleep(REST_S)  # at rest: start-up work is over
        memory = [m for s in servers if isinstance(s, Raydns) for m in _memory(s)]
        rounds = _Rounds(servers, chosen, folder, rng)
        rounds.run(options.rounds)
    finally:
        for server in reversed(servers):
            server.stop()
        upstream.stop()
    rows: list[Row] = [row(work, server, found) for (work, server), found in rounds.samples.items()]
    return document(
        rows,
        rounds.samples,
        rooms_by_work=rounds.rooms,
        cpu_by_work=rounds.cpu,
        memory=memory,
        conditions=_conditions(options, chosen),
    )


class _Rounds:
    """The runs, and what they found."""

    def __init__(self, servers: list[Server], chosen: list[Work], folder: Path, rng: random.Random) -> None:
        self.samples: dict[tuple[str, str], list[Sample]] = {(w.name, s.name): [] for w in chosen for s in servers}
        self.rooms: dict[str, list[dict[str, Any]]] = {}
        self.cpu: dict[str, list[dict[str, Any]]] = {}
        self._servers = servers
        self._works = chosen
        self._folder = folder
        self._rng = rng

    def run(self, rounds: int) -> None:
        """All of them, the servers in another order each time."""
        for turn in range(rounds):
            for work in self._works:
                for server in self._rng.sample(self._servers, len(self._servers)):
                    sample = self._one(server, work, turn)
                    self.samples[work.name, server.name].append(sample)
                    print(
                        f"round {turn + 1}: {work.name:<15} {server.name:<8} {sample.queries_per_second:>10,.0f}/s "
                        f"p99 {sample.p99_ms:.1f} ms, {sample.lost} lost, {sample.errors} errors",
                        file=sys.stderr,
                    )

    def _one(self, server: Server, work: Work, turn: int) -> Sample:
        names = names_file(work, self._folder, turn, self._rng)
        if work.warm_up:
            # Twice: the first pass fills what is above the ingress, the second what is in it.
            for _ in range(2):
                run(server.port, names, replace(work.load, seconds=10, once=True), self._folder)
        before = processes.cpu_us(server.pids())
        result = run(server.port, names, work.load, self._folder)
        pids = server.pids()
        after = processes.cpu_us(pids)
        names.unlink()
        if isinstance(server, Raydns):
            self.rooms[work.name] = rooms(server.recent(ROOMS_MAX))
            self.cpu[work.name] = _cpu(server, before, after, result.completed)
        wrong = sum(count for rcode, count in result.rcodes.items() if rcode not in {"NOERROR", "NXDOMAIN"})
        return Sample(
            queries_per_second=result.queries_per_second,
            p50_ms=result.quantile_ms(0.5),
            p99_ms=result.quantile_ms(0.99),
            cpu_us_per_query=processes.spent_us(before, after) / max(result.completed, 1),
            memory_mb=sum(processes.pss_mb(pid) for pid in pids),
            lost=result.lost,
            errors=wrong,
        )


def _cpu(server: Raydns, before: dict[int, float], after: dict[int, float], queries: int) -> list[dict[str, Any]]:
    """What each process of the cluster spent on a query."""
    found = []
    for pid, command in server.commands().items():
        spent = (after.get(pid, 0.0) - before.get(pid, 0.0)) / max(queries, 1)
        if spent >= 1.0:
            found.append({"process": processes.label(command), "pid": pid, "cpu_us_per_query": round(spent, 1)})
    return sorted(found, key=lambda entry: -float(str(entry["cpu_us_per_query"])))


def _memory(server: Raydns) -> list[dict[str, Any]]:
    found = [
        {"process": processes.label(command), "pid": pid, "pss_mb": round(processes.pss_mb(pid), 1)}
        for pid, command in server.commands().items()
    ]
    return sorted(found, key=lambda entry: -float(str(entry["pss_mb"])))


def _conditions(options: argparse.Namespace, chosen: list[Work]) -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()),
        "generator": "dnsperf on the same cores",
        "rounds": options.rounds,
        "works": {
            w.name: {"seconds": w.load.seconds, "window": w.load.window, "offered_per_second": w.load.rate or None}
            for w in chosen
        },
    }


if __name__ == "__main__":
    sys.exit(main())
