"""dnsperf as the generator: one run, and what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from bisect import bisect_left
from dataclasses import dataclass
from pathlib import Path

# "> NOERROR www.example.com A 0.000421", or "> T www.example.com A" for one without an answer.
_LINE = re.compile(r"^> (?P<rcode>\S+) \S+ \S+(?: (?P<seconds>[0-9.]+))?$")


class LoadError(Exception):
    """The generator is missing, or said something that this reader does not know."""


@dataclass(frozen=True, slots=True)
class Load:
    """How hard is asked: a closed loop of ``window`` queries, or an offered rate."""

    seconds: float
    window: int
    rate: int = 0
    """Queries a second; 0: as fast as the window allows."""
    once: bool = False
    """Every name once: for cold misses."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one run measured."""

    sent: int
    completed: int
    lost: int
    seconds: float
    rcodes: dict[str, int]
    latencies_ms: list[float]
    """Sorted."""
    interrupted: int = 0
    """Under way when the run was told to end; neither completed nor lost."""

    @property
    def queries_per_second(self) -> float:
        """Answers a second."""
        return self.completed / self.seconds if self.seconds else 0.0

    def quantile_ms(self, q: float) -> float:
        """The latency below which this share of the answers stayed."""
        if not self.latencies_ms:
            return 0.0
        return self.latencies_ms[min(int(q * len(self.latencies_ms)), len(self.latencies_ms) - 1)]

    def share_within(self, milliseconds: float) -> float:
        """The share of the answers that came within this time."""
        if not self.latencies_ms:
            return 0.0
        return bisect_left(self.latencies_ms, milliseconds) / len(self.latencies_ms)


def run(port: int, names: Path, load: Load, folder: Path) -> Result:
    """Asks 127.0.0.1 at ``port`` the names in a file.

    Raises:
        LoadError: there is no dnsperf, or it failed.
    """
    tool = shutil.which("dnsperf")
    if tool is None:
        raise LoadError("dnsperf is not installed (Debian: apt-get install dnsperf)")
    command = [tool, "-s", "127.0.0.1", "-p", str(port), "-d", str(names), "-l", f"{load.seconds:g}"]
    command += ["-q", str(load.window), "-c", str(min(load.window, 20)), "-t", "5", "-b", "1024", "-v", "-W"]
    command += ["-Q", str(load.rate)] if load.rate else []
    command += ["-n", "1"] if load.once else []
    output = folder / "dnsperf.txt"
    with output.open("w") as file:
        try:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, timeout=load.seconds + 60, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise LoadError(f"dnsperf did not end after {load.seconds + 60:g} s") from error
    if done.returncode:
        raise LoadError(f"dnsperf failed: {output.read_text()[-500:]}")
    return parse(output.read_text())


def parse(text: str) -> Result:
    """Reads dnsperf's verbose output; raises ``LoadError`` for what is not."""
    latencies: list[float] = []
    rcodes: dict[str, int] = {}
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        if found["seconds"] is not None:
            latencies.append(float(found["seconds"]) * 1000)
            rcodes[found["rcode"]] = rcodes.get(found["rcode"], 0) + 1
    latencies.sort()
    return Result(
        sent=int(_figure(text, r"Queries sent:\s+(\d+)")),
        completed=int(_figure(text, r"Queries completed:\s+(\d+)")),
        lost=int(_figure(text, r"Queries lost:\s+(\d+)")),
        seconds=_figure(text, r"Run time \(s\):\s+([0-9.]+)"),
        rcodes=rcodes,
        latencies_ms=latencies,
        interrupted=int(_figure(text, r"Queries interrupted:\s+(\d+)", default=0.0)),
    )


def _figure(text: str, pattern: str, default: float | None = None) -> float:
    found = re.search(pattern, text)
    if found is None:
        if default is not None:
            return default
        raise LoadError(f"dnsperf's output lacks {pattern!r}: {text[-300:]}")
    return float(found[1])
