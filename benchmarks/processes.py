"""What processes cost: CPU time and proportional memory, read from /proc."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

_TICK_US = 1_000_000 / os.sysconf("SC_CLK_TCK")
_INTERPRETERS = ("python", "bash", "/bin/sh")


def cpu_us(pids: Iterable[int]) -> dict[int, float]:
    """User and system time of each process so far, its ended children included, in microseconds."""
    found: dict[int, float] = {}
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid] = sum(int(fields[n]) for n in (11, 12, 13, 14)) * _TICK_US
    return found


def spent_us(before: dict[int, float], after: dict[int, float]) -> float:
    """CPU time between two readings; a process that is new counts from its start."""
    return sum(max(value - before.get(pid, 0.0), 0.0) for pid, value in after.items())


def pss_mb(pid: int) -> float:
    """Proportional set size: shared pages are divided among those who share them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    for line in text.splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def marked(marks: Iterable[str]) -> dict[int, str]:
    """Processes whose command line or environment holds one of the marks, with their command lines."""
    wanted = [mark.encode() for mark in marks]
    found: dict[int, str] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if command and any(mark in command or mark in environment for mark in wanted):
            found[int(folder.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def label(command: str) -> str:
    """A short name for a command line: what it runs, without interpreter, folders and arguments."""
    if command.startswith("ray::"):
        return command.split(maxsplit=1)[0]
    words = [word for word in command.split() if not word.startswith("-")]
    while len(words) > 1 and Path(words[0]).name.startswith(_INTERPRETERS):
        words.pop(0)
    if not words:
        return command[:40]
    first = words[0]
    name = Path(first).name if "/" in first else first
    if name in {"main.py", "__main__.py"}:
        name = f"{Path(first).parent.name}/{name}"
    return " ".join([name, *(w for w in words[1:2] if w.isalpha())])[:40]


def end(pid: int, timeout_s: float = 10.0) -> None:
    """Ends one process: asks, waits, insists."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if not Path(f"/proc/{pid}").exists() or _ended(pid):
                return
            time.sleep(0.05)


def _ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True
