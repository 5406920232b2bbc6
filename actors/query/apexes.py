"""The apex table: which names are served here, whatever image anybody holds of them."""

from __future__ import annotations

from collections.abc import Iterable

from raydns.schemas import dns
from raydns.schemas.cluster import ZoneEntry


class Apexes:
    """Finds the zone of a name in O(labels)."""

    def __init__(self, zones: Iterable[ZoneEntry] = ()) -> None:
        self._views: dict[int, dict[bytes, ZoneEntry]] = {}
        for zone in zones:
            self._views.setdefault(zone.view, {})[zone.apex] = zone

    def has_any(self, view: int) -> bool:
        """Whether the view has zones at all."""
        return bool(self._views.get(view))

    def find(self, key: bytes, view: int, qtype: int = 0) -> ZoneEntry | None:
        """The zone with the longest apex above a name in key form; ``None``: the name is not served here.

        DS at an apex is the parent's to answer where the parent is served here too (RFC 4035 section 3.1.4.1).
        """
        table = self._views.get(view)
        if not table:
            return None
        own: ZoneEntry | None = None
        position = 0
        while True:
            found = table.get(key[position:])
            if found is not None:
                if qtype != dns.Type.DS or position or own is not None:
                    return found
                own = found
            size = key[position]
            if not size:
                return own
            position += size + 1
