"""What is asked: names in the cache, names of a zone that is served, names that must be forwarded."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from .load import Load

UPSTREAM_ZONE = "upstream.example."
LOCAL_ZONE = "local.example."
NAMES = 1_000
"""Distinct names that are cached or served: small enough for every cache, too many for a single hot entry."""
COLD_NAMES_PER_SECOND = 60_000
"""More than any server here resolves in a second on two cores, so that no cold name is asked twice."""


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of question."""

    name: str
    load: Load
    cold: bool = False
    warm_up: bool = False
    """All names are asked once before it counts."""


def works(seconds: float) -> list[Work]:
    """The works, each for so many seconds a round.

    The windows are those of a busy resolver's clients; a latency without its offered load says nothing, so the last
    work is a fixed rate: what the issue asks of misses.
    """
    return [
        Work("cached", Load(seconds, 100), warm_up=True),
        Work("zone", Load(seconds, 100)),
        Work("forwarded", Load(seconds, 100, once=True), cold=True),
        Work("forwarded_3000", Load(seconds, 500, rate=3000, once=True), cold=True),
    ]


def zone_text(apex: str, *, served: bool) -> str:
    """A master file: ``served`` names, or the wildcards that answer whatever is forwarded."""
    lines = [
        f"$ORIGIN {apex}",
        "$TTL 3600",
        "@ IN SOA ns hostmaster 1 3600 600 86400 60",
        "@ IN NS ns",
        "ns IN A 127.0.0.1",
    ]
    if served:
        lines += [f"host{n} IN A 192.0.2.{n % 250 + 1}" for n in range(NAMES)]
    else:
        lines += ["*.cold IN A 198.51.100.2", "*.warm IN A 198.51.100.3"]
    return "\n".join(lines) + "\n"


def names_file(work: Work, folder: Path, turn: int, rng: random.Random) -> Path:
    """Writes the names of one run; cold ones are new in each, so that no server has seen them."""
    path = folder / f"{work.name}-{turn}.names"
    if work.cold:
        rate = work.load.rate or COLD_NAMES_PER_SECOND
        tag = f"{rng.randrange(1 << 40):x}"
        count = int(rate * work.load.seconds * 1.1) + 1
        text = "".join(f"{tag}-{n}.cold.{UPSTREAM_ZONE} A\n" for n in range(count))
    elif work.name == "zone":
        text = "".join(f"host{n}.{LOCAL_ZONE} A\n" for n in rng.sample(range(NAMES), NAMES))
    else:
        text = "".join(f"name{n}.warm.{UPSTREAM_ZONE} A\n" for n in rng.sample(range(NAMES), NAMES))
    path.write_text(text)
    return path
