"""Memory of this machine's processes, as /proc tells it; nothing where there is no /proc."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .sources import Sources


def memory(sources: Sources) -> dict[str, int]:
    """Resident octets by process: the supervisor, the ingress, Ray's head process, each actor."""
    pids: dict[str, Any] = {"node": os.getpid()}
    node = sources.node.value
    for part in ("ingress", "ray"):
        found = node.get(part)
        if isinstance(found, Mapping):
            pids[part] = found.get("pid")
    pids["agent"] = sources.agent.value.get("pid")
    actors = sources.agent.value.get("actors")
    if isinstance(actors, Mapping):
        pids.update({str(name): one.get("pid") for name, one in actors.items() if isinstance(one, Mapping)})
    sizes = {name: resident(pid) for name, pid in pids.items()}
    return {name: size for name, size in sizes.items() if size}


def resident(pid: object) -> int:
    """Resident octets of one process; 0 where it is gone or is no process id."""
    if not isinstance(pid, int | float) or isinstance(pid, bool) or not 0 < pid < 1 << 31:
        return 0
    try:
        fields = Path(f"/proc/{int(pid)}/statm").read_text(encoding="ascii").split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0
