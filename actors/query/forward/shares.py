"""Who may start another flight when there are many: no zone's trouble uses up what the others need."""

from __future__ import annotations


class Shares:
    """Dynamic thresholds: a zone may hold as many flights as are still free for everybody.

    One zone alone gets half of the whole, two a third each, and so on: a flood of random names under one zone, or
    names whose servers are broken, always leave room. (Choudhury and Hahne, 1998, for buffers of a switch.)
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.shed = 0
        self._zones: dict[bytes, int] = {}  # no entry where nothing is in flight

    def take(self, zone: bytes) -> bool:
        """Counts one more flight for the zone; ``False`` if it holds its share already."""
        held = self._zones.get(zone, 0)
        if held >= self.limit - self.total:
            self.shed += 1
            return False
        self._zones[zone] = held + 1
        self.total += 1
        return True

    def give_back(self, zone: bytes) -> None:
        """One of the zone's flights has ended."""
        held = self._zones[zone]
        self.total -= 1
        if held == 1:
            del self._zones[zone]
        else:
            self._zones[zone] = held - 1
