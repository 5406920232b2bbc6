"""The benchmark's own arithmetic: dnsperf's output, medians, ratios, rooms, processes; and one short real run."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import bench, processes
from benchmarks.load import LoadError, parse
from benchmarks.report import Row, Sample, ratios, rooms, row
from benchmarks.works import NAMES, names_file, works
from raydns.schemas.batch import Outcome, Room, stamp

OUTPUT = """DNS Performance Testing Tool
> NOERROR a.example A 0.001000
> SERVFAIL b.example A 0.003000
> NXDOMAIN c.example A 0.002000
> T d.example A
Statistics:

  Queries sent:         4
  Queries completed:    3 (75.00%)
  Queries lost:         1 (25.00%)

  Run time (s):         0.500000
  Queries per second:   6.000000
"""


def test_dnsperf_is_read_to_the_last_latency() -> None:
    """Counts, response codes, sorted latencies and quantiles come out of the verbose output."""
    result = parse(OUTPUT)
    assert (result.sent, result.completed, result.lost, result.queries_per_second) == (4, 3, 1, 6.0)
    assert result.latencies_ms == [1.0, 2.0, 3.0]
    assert (result.quantile_ms(0.5), result.quantile_ms(0.99)) == (2.0, 3.0)
    assert result.share_within(2.5) == pytest.approx(2 / 3)
    assert result.rcodes == {"NOERROR": 1, "SERVFAIL": 1, "NXDOMAIN": 1}


def test_other_output_is_refused() -> None:
    """An error message of dnsperf is shown, not taken for zero queries."""
    with pytest.raises(LoadError, match="Connection refused"):
        parse("Error: Connection refused")


def test_rows_are_medians_and_ratios_are_ours_over_theirs() -> None:
    """The outlier of three rounds does not count; a ratio of a peer without figures is none."""
    rounds = [Sample(q, q / 10, q, 5.0, 20.0, 0, 0) for q in (100.0, 120.0, 9000.0)]
    mine = row("cached", "raydns", rounds)
    assert (mine.queries_per_second, mine.p50_ms) == (120.0, 12.0)
    found = ratios([mine, Row("cached", "unbound", 60.0, 1.0, 0.0, 10.0, 9.0), Row("zone", "unbound", 1, 1, 1, 1, 1)])
    assert found == [
        {"work": "cached", "peer": "unbound", "queries_per_second": 2.0, "cpu_us_per_query": 0.5, "p99_ms": None}
    ]


def test_rooms_are_grouped_by_path_with_their_own_time() -> None:
    """Own time is what the rooms above do not explain; a torn list is left out."""
    through = stamp(Room.INGRESS, Outcome.MISS, 0, 1, 900) + stamp(Room.CACHE, Outcome.MISS, 0, 2, 600)
    queries = [{"rooms": through}, {"rooms": through}, {"rooms": stamp(Room.INGRESS, 1, 0, 1, 50)}, {"rooms": b"x"}]
    found = rooms(queries)
    assert [path["queries"] for path in found] == [2, 1]
    assert found[0]["rooms"] == [
        {"room": "ingress", "total_us": 900, "own_us": 300},
        {"room": "cache", "total_us": 600, "own_us": 600},
    ]


def test_cold_names_are_never_asked_twice(tmp_path: Path) -> None:
    """Each run of a cold work has names of its own; warm works share theirs."""
    rng = random.Random(1)
    by_name = {w.name: w for w in works(0.01)}
    cold = [names_file(by_name["forwarded"], tmp_path, n, rng).read_text().splitlines() for n in range(2)]
    assert not set(cold[0]) & set(cold[1])
    assert len(set(cold[0])) == len(cold[0])
    warm = [names_file(by_name["cached"], tmp_path, n, rng).read_text().splitlines() for n in range(2)]
    assert set(warm[0]) == set(warm[1])
    assert len(set(warm[0])) == NAMES


def test_processes_are_measured_and_ended_by_id() -> None:
    """CPU time grows, memory is not zero, a marked process is found, and ending it ends it alone."""
    code = "import sys\nprint(1, flush=True)\nwhile True: pass"
    child = subprocess.Popen([sys.executable, "-c", code, "bench-mark-42"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    try:
        before = processes.cpu_us([child.pid])
        while processes.spent_us(before, processes.cpu_us([child.pid])) < 20_000:
            pass
        assert processes.pss_mb(child.pid) > 1
        assert child.pid in processes.marked(["bench-mark-42"])
        assert os.getpid() not in processes.marked(["bench-mark-42"])
    finally:
        processes.end(child.pid)
        child.stdout.close()
    assert child.wait(5) == -15


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("ray::CacheActor.statistics", "ray::CacheActor.statistics"),
        ("/tmp/w/venv/bin/python -m raydns.nodes.ingress.main --fd 3", "raydns.nodes.ingress.main"),
        ("/x/ray/core/src/ray/raylet/raylet --raylet_socket_name=/tmp/x", "raylet"),
        ("/usr/bin/python3.11 -u /x/ray/dashboard/agent.py --node-ip=1", "agent.py"),
    ],
)
def test_processes_have_short_names(command: str, name: str) -> None:
    """Interpreter, folders and options say nothing about which process it is."""
    assert processes.label(command) == name


@pytest.mark.peer
@pytest.mark.skipif(not all(map(shutil.which, ("dnsperf", "nsd", "unbound"))), reason="dnsperf, nsd, unbound needed")
def test_a_short_run_against_a_peer_writes_rows(tmp_path: Path) -> None:
    """One round against Unbound alone: rows with all the fields that the issue names, no errors, no process left."""
    output = tmp_path / "bench.json"
    arguments = ["--servers", "unbound", "--rounds", "1", "--seconds", "0.3", "--output", str(output)]
    assert bench.main(arguments) == 0
    found = json.loads(output.read_text())
    assert [r["work"] for r in found["rows"]] == ["cached", "zone", "forwarded", "forwarded_3000"]
    fields = {"work", "server", "queries_per_second", "p50_ms", "p99_ms", "cpu_us_per_query", "memory_mb"}
    assert all(set(r) == fields and r["queries_per_second"] > 0 and r["memory_mb"] > 1 for r in found["rows"])
    assert all(r["errors"] == 0 for r in found["rounds"])
