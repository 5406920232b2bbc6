"""When a machine looks for its images, and what it finds missing."""

from __future__ import annotations

from raydns.actors.agent.images import CHECK_S, URGENT_S, ImageWatch
from raydns.schemas.cluster import ImageRef, ZoneEntry

ZONES = [
    ZoneEntry(b"\x01a\x00", 0, 0, 1, 1, ImageRef("aa", 1)),
    ZoneEntry(b"\x01b\x00", 0, 0, 1, 1, ImageRef("bb", 1)),
    ZoneEntry(b"\x01c\x00", 0, 0, 1, 1, None, state="loading"),
]


def test_what_zones_have_and_the_disk_has_not_is_missing() -> None:
    """Proves that only images that a zone names are missed, and that news is told once."""
    present = ["aa", "zz"]
    watch = ImageWatch(lambda: present)
    assert watch.look(ZONES) == (["bb"], True)
    assert watch.look(ZONES) == (["bb"], False)
    present.append("bb")
    assert watch.look(ZONES) == ([], True)
    assert watch.look(ZONES) == ([], False)


def test_it_looks_now_and_then_and_sooner_where_it_helps() -> None:
    """Proves the pace: seldom at rest, soon when the ingress lacks an image, seldom again when nobody has it."""
    present = ["aa", "bb"]
    watch = ImageWatch(lambda: present)
    assert watch.due(100.0, urgent=False)
    assert not watch.due(100.0 + CHECK_S - 0.1, urgent=False)
    assert watch.due(100.0 + URGENT_S, urgent=True)
    assert not watch.due(100.0 + URGENT_S, urgent=True)
    present.clear()
    watch.look(ZONES)
    assert not watch.due(100.0 + 2 * URGENT_S, urgent=True)
    assert watch.due(100.0 + URGENT_S + CHECK_S, urgent=True)
