"""Keeps a machine's image files whole: finds out which are missing or damaged, and when to look.

Image files are never written into by us. A disk that fails, a stray process or an operator's mistake may do so
all the same; who has such a file mapped answers from what it has become. So the agent looks at all of them every
few seconds: a file that has not changed costs one ``stat``, one that has is hashed and, if wrong, removed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from raydns.schemas.cluster import ZoneEntry

CHECK_S: Final = 5.0
URGENT_S: Final = 1.0


class ImageWatch:
    """Decides when to look, and what is missing.

    Args:
        present: SHA-256 of the image files that are here and right, as ``nodes.known.Known.images``.
    """

    def __init__(self, present: Callable[[], Iterable[str]]) -> None:
        self._present = present
        self._looked_at = float("-inf")
        self._missing: list[str] = []

    def due(self, now: float, *, urgent: bool) -> bool:
        """Whether to look now; ``urgent``: the ingress lacks an image, and it is not known yet that nobody has it."""
        if now - self._looked_at < (URGENT_S if urgent and not self._missing else CHECK_S):
            return False
        self._looked_at = now
        return True

    def look(self, zones: Sequence[ZoneEntry]) -> tuple[list[str], bool]:
        """Images of zones that are not here, and whether that is news. Reads files: not for an event loop."""
        present = set(self._present())
        missing = sorted({zone.image.sha256 for zone in zones if zone.image is not None} - present)
        news, self._missing = missing != self._missing, missing
        return missing, news
