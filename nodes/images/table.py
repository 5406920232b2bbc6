"""``ZoneTable``: every apex of every view with its image, the longest apex for a name, and finished answers kept.

A table is one immutable value: an engine swaps the whole, so that no answer mixes two states; images that did not
change are taken over from the previous table, finished answers never are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from raydns.schemas import dns, names
from raydns.schemas.cluster import ZoneEntry
from raydns.schemas.dns import Type
from raydns.schemas.errors import ImageError
from raydns.schemas.wire import Query

from .answer import Answer, respond
from .reader import Image, ImageZone, open_image

ANSWERS_KEPT_MAX: Final = 8192
ANSWER_KEPT_SIZE_MAX: Final = 2048  # so at most 24 MB of answers with their layouts a table
_DS: Final = int(Type.DS)
_IN: Final = int(dns.Class.IN)
_NOT_HERE: Final = frozenset({Type.AXFR, Type.IXFR})
_META: Final = frozenset({249, Type.TSIG, 253, 254})  # TKEY, TSIG, MAILB, MAILA (RFC 6895 section 3.1)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """An entry whose image cannot be served, and why; its names are answered above, or with SERVFAIL."""

    apex: bytes
    sha256: str
    problem: str


class ZoneTable:
    """All zones of a machine, in one state.

    Args:
        entries: every zone that is served anywhere, also those without an image.
        images: image files present here, by SHA-256.
        previous: the table before; images that both name stay mapped, unless their files were written into.
    """

    def __init__(
        self, entries: Sequence[ZoneEntry], images: Mapping[str, Path], *, previous: ZoneTable | None = None
    ) -> None:
        self.entries = list(entries)
        self.refusals: list[Refused] = []
        self.missing = 0
        """Entries without a usable image on this machine."""
        self._images: dict[str, Image] = {}
        self._entries: dict[tuple[int, bytes], ZoneEntry] = {}
        self._zones: dict[tuple[int, bytes], ImageZone] = {}
        self._kept: dict[tuple[int, bytes, int], Answer] = {}
        self._told: set[bytes] = set()
        self._apex_sizes: frozenset[int] = frozenset(len(entry.apex) for entry in entries)
        before = previous._images if previous is not None else {}
        opened: dict[str, Image | str] = {sha256: image for sha256, image in before.items() if not image.touched}
        self._zones_of: dict[str, dict[tuple[int, bytes], ImageZone]] = {}
        for entry in entries:
            self._entries[entry.view, entry.apex] = entry
            zone = self._open(entry, images, opened)
            if zone is None:
                self.missing += 1
            else:
                self._zones[entry.view, entry.apex] = zone

    def _open(self, entry: ZoneEntry, paths: Mapping[str, Path], opened: dict[str, Image | str]) -> ImageZone | None:
        if entry.image is None or entry.state == "expired":
            return None
        sha256 = entry.image.sha256
        image = opened.get(sha256)
        if image is None:
            path = paths.get(sha256)
            if path is None:
                return None  # not fetched yet: no fault of the image
            try:
                image = open_image(path)
            except ImageError as error:
                image = str(error)
            opened[sha256] = image
        if isinstance(image, str):
            self.refusals.append(Refused(entry.apex, sha256, image))
            return None
        self._images[sha256] = image
        zones = self._zones_of.setdefault(sha256, {(z.view, z.apex): z for z in image.zones})
        zone = zones.get((entry.view, entry.apex))
        if zone is None:
            text = f"{image.path}: holds no zone {names.to_text(entry.apex)} of view {entry.view}"
            self.refusals.append(Refused(entry.apex, sha256, text))
        return zone

    def find(self, key: bytes, qtype: int = 0, view: int = 0) -> ZoneEntry | None:
        """The entry with the longest apex at or above ``key``, whether or not its image is usable.

        DS at an apex belongs to the parent's zone (RFC 4035 section 3.1.4.1); where we do not serve that, the
        child's own zone answers (NODATA).
        """
        entries = self._entries
        sizes = self._apex_sizes
        size = len(key)
        position = 0
        child: ZoneEntry | None = None
        while True:
            if size - position in sizes:
                entry = entries.get((view, key[position:]))
                if entry is not None:
                    if qtype != _DS or position or not key[0]:
                        return entry
                    child = entry
            if not key[position]:
                return child
            position += key[position] + 1

    def _sound(self, entry: ZoneEntry | None, view: int) -> ZoneEntry | None:
        """The entry, unless its image's file was written into: what stands there now would be a lie, or SIGBUS."""
        zone = self._zones.get((view, entry.apex)) if entry is not None else None
        if zone is None or not zone.touched:
            return entry
        if zone.apex not in self._told:
            self._told.add(zone.apex)
            log.error("zone image written into: not answered from", extra={"zone": names.to_text(zone.apex)})
        return None

    def zone(self, entry: ZoneEntry) -> ImageZone | None:
        """The usable zone of an entry."""
        return self._zones.get((entry.view, entry.apex))

    def answer(self, query: Query, view: int = 0) -> Answer | None:
        """The answer to a query; ``None``: no apex of ours is above its name, or that apex has no usable image."""
        kept = self.answer_key(query.key, query.qtype, query.qclass, view)
        if kept is None or query.qname == query.key:
            return kept
        # Owners that equal the question's name are pointers to it: its case answers for all of them.
        message = kept.message
        end = dns.HEADER_SIZE + len(query.key)
        return Answer(
            message[: dns.HEADER_SIZE] + query.qname + message[end:],
            kept.layout,
            kept.rcode,
            kept.incomplete_cname,
            kept.required,
        )

    def answer_key(self, key: bytes, qtype: int, qclass: int = _IN, view: int = 0) -> Answer | None:
        """As ``answer``, with the question's name in key form: the form in which answers travel in batches."""
        if qclass == _IN:
            kept = self._kept.get((view, key, qtype))
            if kept is not None:
                return kept
        return self._make(key, qtype, qclass, view)

    def _make(self, key: bytes, qtype: int, qclass: int, view: int) -> Answer | None:
        entry = self._sound(self.find(key, qtype, view), view)
        zone = self._zones.get((view, entry.apex)) if entry is not None else None
        if zone is None:
            return None
        if qclass not in (_IN, dns.Class.ANY) or qtype in _NOT_HERE:
            return _without_records(key, qtype, qclass, dns.Rcode.REFUSED)
        if qtype in _META:
            return _without_records(key, qtype, qclass, dns.Rcode.NOTIMP)

        def find_zone(name: bytes, wanted: int) -> ImageZone | None:
            found = self._sound(self.find(name, wanted, view), view)
            return self._zones.get((view, found.apex)) if found is not None else None

        try:
            answer = respond(key, qtype, qclass, zone, find_zone)
        except ImageError as error:
            # A torn node behind right checksums: a writer's fault. Its names are asked above; the rest goes on.
            log.error("zone image torn", extra={"problem": str(error)})
            return None
        if qclass == _IN and len(answer.message) <= ANSWER_KEPT_SIZE_MAX:
            if len(self._kept) >= ANSWERS_KEPT_MAX:
                del self._kept[next(iter(self._kept))]
            self._kept[view, key, qtype] = answer
        return answer

    def statistics(self) -> dict[str, float]:
        """Counts for metrics and status."""
        return {
            "zones": float(len(self._entries)),
            "zones_missing": float(self.missing),
            "images": float(len(self._images)),
            "answers_kept": float(len(self._kept)),
        }


def _without_records(key: bytes, qtype: int, qclass: int, rcode: int) -> Answer:
    header = (((dns.QR | rcode) << 64) | (1 << 48)).to_bytes(dns.HEADER_SIZE, "big")
    return Answer(header + key + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big"), b"", rcode)


def retired(previous: ZoneTable, current: ZoneTable) -> list[Image]:
    """Images that only the previous table maps: to be closed once nobody answers from it."""
    return [image for sha256, image in previous._images.items() if current._images.get(sha256) is not image]
