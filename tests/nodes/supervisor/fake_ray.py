"""A tiny stand-in for ``ray start --block``: a parent with daemons, one worker that hides, and bad manners.

    fake_ray.py start STATE_DIR      starts daemons, writes its process id, blocks
    fake_ray.py bootstrap STATE_DIR  fails twice, then succeeds; notes each run

Of its daemons one ignores SIGTERM (as Ray's agents do), one is in a process group of its own (as workers are), one
is double-forked into a session of its own (as an actor's child may be).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"


def start(place: Path) -> None:
    """Blocks like Ray, with daemons around it."""
    subprocess.Popen([sys.executable, "-c", STUBBORN])
    subprocess.Popen(["sleep", "600"], process_group=0)
    subprocess.run(["setsid", "-f", "sleep", "600"], check=True)
    with (place / "ray-starts").open("a") as file:
        file.write(f"{os.getpid()}\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    while True:
        time.sleep(1)


def bootstrap(place: Path) -> None:
    """Fails twice, as it does while Ray is not up."""
    notes = place / "bootstraps"
    runs = len(notes.read_text().splitlines()) if notes.exists() else 0
    with notes.open("a") as file:
        file.write("run\n")
    if runs < 2:
        print("fake bootstrap: not yet")
        sys.exit(1)


if __name__ == "__main__":
    {"start": start, "bootstrap": bootstrap}[sys.argv[1]](Path(sys.argv[2]))
