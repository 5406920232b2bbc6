"""``ZoneShardCore``: zones in, images and answers out; no Ray, no sockets, clocks and stores as arguments.

A load is all or nothing: parse, check, build, keep the image, keep the zone, and only then answer from it; an error
anywhere leaves what was served before. Answers come from the same images and code as on every other machine.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from raydns.nodes.images import Image, ZoneTable
from raydns.nodes.images.table import retired
from raydns.nodes.metrics import Metrics
from raydns.schemas import batch, dns, names, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryItem, Room
from raydns.schemas.cluster import ImageRef, ZoneEntry
from raydns.schemas.dns import Ede, Rcode
from raydns.schemas.errors import NameError_, StateError, ZoneFileError

from .image_writer import ZoneSource, build
from .master import ReadInclude, confined_includes, parse
from .problems import Problem
from .store import StoredZone, ZoneStore
from .zone_data import ZoneData, serial_is_newer

log = logging.getLogger(__name__)


class ImageStore(Protocol):
    """Where image files are kept: ``raydns.nodes.known.Known``."""

    def put_image(self, data: bytes) -> ImageRef:
        """Keeps an image under its SHA-256."""

    def images(self) -> dict[str, Path]:
        """Image files present, by SHA-256."""


class ZoneShardCore:
    """The zones of one shard.

    Args:
        index: the shard's number.
        store: its zones on disk.
        images: where images are kept.
        now_s: Unix time.
        now_us: Unix time in microseconds, for time stamps.
    """

    def __init__(
        self,
        index: int,
        store: ZoneStore,
        images: ImageStore,
        *,
        now_s: Callable[[], float],
        now_us: Callable[[], int],
    ) -> None:
        self.index = index
        self._store = store
        self._images = images
        self._now_s = now_s
        self._now_us = now_us
        self._zones: dict[tuple[int, bytes], StoredZone] = {}
        self._adopted: dict[tuple[int, bytes], ZoneEntry] = {}
        """Zones that the cluster says are ours and the store does not hold: served, never changed."""
        self._table = ZoneTable([], {})
        self._retired: list[Image] = []
        metrics = self.metrics = Metrics()
        self._answered = metrics.counter(
            "raydns_zone_queries_total", "Queries answered by this shard, by outcome.", "outcome"
        )
        self._loads = metrics.counter("raydns_zone_loads_total", "Master files read, by outcome.", "outcome")
        metrics.gauge("raydns_zone_zones", "Zones owned by this shard.", lambda: len(self._zones))
        metrics.gauge("raydns_zone_records", "Records in those zones.", lambda: sum(e.records for e in self.entries()))

    def start(self, known: Sequence[ZoneEntry] = ()) -> None:
        """Takes up what is stored; makes images that are missing; adopts entries that only the cluster knows.

        An empty store never means empty zones: what the last snapshot names as this shard's stays published and is
        answered from its image until somebody loads it again or unloads it.
        """
        present = self._images.images()
        for zone in self._store.zones():
            entry = zone.entry
            if entry.image is None or entry.image.sha256 not in present:
                zone = self._rebuild(zone)
            self._zones[entry.view, entry.apex] = zone
        self._install()
        self.adopt(known)

    def adopt(self, known: Sequence[ZoneEntry]) -> None:
        """Takes entries of this shard from a snapshot that the store lacks; looks again for images that are missing."""
        before = len(self._adopted)
        mine = [entry for entry in known if entry.shard == self.index]
        for entry in mine:
            if (entry.view, entry.apex) not in self._zones and (entry.view, entry.apex) not in self._adopted:
                log.warning("zone known to the cluster is not in the store", extra={"zone": names.to_text(entry.apex)})
                self._adopted[entry.view, entry.apex] = entry
        if len(self._adopted) != before or self._table.missing:
            self._install()

    def mend(self) -> None:
        """Makes images again whose files have vanished or were damaged; what cannot be made is said and stays."""
        present = self._images.images()
        lost = [
            place
            for place, zone in self._zones.items()
            if zone.entry.image is not None and zone.entry.image.sha256 not in present
        ]
        for place in lost:
            try:
                self._zones[place] = self._rebuild(self._zones[place])
            except StateError as error:
                log.error("image not made again", extra={"zone": names.to_text(place[1]), "problem": str(error)})
            else:
                log.warning("image made again", extra={"zone": names.to_text(place[1])})
        if lost:
            self._install()

    def _rebuild(self, zone: StoredZone) -> StoredZone:
        entry = zone.entry
        data = self._store.contents(entry.view, entry.apex)
        if data is None:
            problem = "its contents are missing from the zone store; load it again"
            log.error("zone lost", extra={"zone": names.to_text(entry.apex), "problem": problem})
            failed = msgspec.structs.replace(entry, image=None, state="failed", problem=problem)
            return msgspec.structs.replace(zone, entry=failed)
        image = self._images.put_image(build([ZoneSource(data, entry.view, entry.epoch)]))
        return msgspec.structs.replace(zone, entry=msgspec.structs.replace(entry, image=image, state="ready"))

    def load(
        self, apex: bytes | None, text: str, origin_file: str, *, view: int = 0, includes: ReadInclude | None = None
    ) -> ZoneEntry:
        """Reads a master file and publishes the zone.

        Args:
            apex: its name; ``None`` takes the SOA's owner.
            text: the file's text.
            origin_file: the file's path: for messages, and its folder is where $INCLUDE may read.
            view: the view that it belongs to.
            includes: how $INCLUDE reads instead.

        Raises:
            MasterFileError: the file has errors; what was served before still is.
            StateError: image or store cannot be written; what was served before still is.
        """
        if includes is None and origin_file:
            includes = confined_includes(Path(origin_file).parent)
        try:
            if apex is not None:
                apex = names.check(apex)
            data = parse(text, apex, origin_file=origin_file, read_include=includes)
            zone = self._publish(data, origin_file, view)
        except (ZoneFileError, StateError, NameError_) as error:
            self._loads.inc("failed")
            log.warning("zone not loaded", extra={"file": origin_file, "problem": str(error)})
            raise
        self._loads.inc("loaded")
        log.info(
            "zone loaded",
            extra={
                "zone": names.to_text(zone.entry.apex),
                "serial": zone.entry.serial,
                "records": zone.entry.records,
                "warnings": len(zone.warnings),
            },
        )
        return zone.entry

    def _publish(self, data: ZoneData, origin_file: str, view: int) -> StoredZone:
        place = (view, data.apex)
        warnings, data.warnings = data.warnings, []
        digest = hashlib.sha256(msgspec.msgpack.encode(data)).hexdigest()
        before = self._zones.get(place)
        old = before.entry if before is not None else self._adopted.get(place)
        if before is not None and before.digest == digest and before.entry.image is not None:
            return before  # nothing changed: the same image, the same epoch
        if old is not None and not serial_is_newer(data.serial, old.serial):
            text = f"the contents changed and serial {data.serial} is not newer than {old.serial}"
            warnings.append(Problem("warning", "serial-not-raised", text, origin_file))
        epoch = (old.epoch if old is not None else 0) + 1
        image = self._images.put_image(build([ZoneSource(data, view, epoch)]))
        entry = ZoneEntry(data.apex, view, self.index, data.serial, epoch, image, data.records)
        zone = StoredZone(entry, origin_file, digest, self._now_s(), [str(warning) for warning in warnings])
        self._store.put(zone, data)
        self._zones[place] = zone
        self._adopted.pop(place, None)
        self._install()
        return zone

    def unload(self, apex: bytes, view: int = 0) -> bool:
        """Forgets a zone; whether it was here. Saying it twice is harmless."""
        place = (view, apex.lower())
        zone = self._zones.pop(place, None)
        adopted = self._adopted.pop(place, None)
        if zone is None and adopted is None:
            return False
        self._store.delete(view, place[1])
        self._install()
        log.info("zone unloaded", extra={"zone": names.to_text(apex)})
        return True

    def entries(self) -> list[ZoneEntry]:
        """Every zone of this shard as the cluster should know it, in order of view and apex."""
        found = [zone.entry for zone in self._zones.values()] + list(self._adopted.values())
        return sorted(found, key=lambda entry: (entry.view, names.canonical_key(entry.apex)))

    def zone(self, apex: bytes, view: int = 0) -> StoredZone | None:
        """What is known of one zone."""
        return self._zones.get((view, apex.lower()))

    def _install(self) -> None:
        before = self._table
        self._table = ZoneTable(self.entries(), self._images.images(), previous=before)
        for refused in self._table.refusals:
            log.error("zone image refused", extra={"zone": names.to_text(refused.apex), "problem": refused.problem})
        self._retired += retired(before, self._table)

    def close_retired(self) -> None:
        """Unmaps images of earlier tables; to be called where answers are made, between two of them."""
        while self._retired:
            self._retired.pop().close()

    def answer(self, item: QueryItem) -> AnswerItem:
        """Answers one query of a batch; never raises."""
        start_us = self._now_us()
        try:
            query = wire.parse_query(item.message)
        except wire.BadQuery as error:
            return self._failure(item, start_us, error.rcode, None)
        except wire.NotAQuery:
            padded = item.message.ljust(dns.HEADER_SIZE, b"\0")
            return self._failure(msgspec.structs.replace(item, message=padded), start_us, Rcode.FORMERR, None)
        if query.opcode != dns.Opcode.QUERY:
            return self._failure(item, start_us, Rcode.NOTIMP, query)
        found = self._table.answer_key(query.key, query.qtype, query.qclass, item.view_id)
        if found is None:
            # RFC 8914 section 4.15: the zone is ours to answer, and not loaded.
            failure = self._failure(item, start_us, Rcode.SERVFAIL, query)
            failure.ede, failure.ede_text = Ede.NOT_READY, "zone is not loaded on its shard"
            return failure
        outcome = Outcome.NEGATIVE if found.rcode == Rcode.NXDOMAIN else Outcome.HIT
        return AnswerItem(
            item.slot,
            found.message,
            AnswerFlag.AUTHORITATIVE | AnswerFlag.SHAREABLE | (AnswerFlag.TRACED if item.sampled else 0),
            began=item.state_version,
            ring_version=item.ring_version,
            layout=found.layout,
            rooms=self._stamp(outcome, start_us),
        )

    def _failure(self, item: QueryItem, start_us: int, rcode: int, query: wire.Query | None) -> AnswerItem:
        plain = msgspec.structs.replace(query, edns=None) if query is not None else None
        message = b"\0\0" + wire.error_response(item.message, plain, rcode & 0xF)[2:]
        return AnswerItem(
            item.slot,
            message,
            AnswerFlag.LOCAL_FAILURE | (AnswerFlag.TRACED if item.sampled else 0),
            began=item.state_version,
            ring_version=item.ring_version,
            rooms=self._stamp(Outcome.FAILED, start_us),
        )

    def _stamp(self, outcome: Outcome, start_us: int) -> bytes:
        self._answered.inc(outcome.name.lower())
        return batch.stamp(Room.ZONE, outcome, self.index, start_us, self._now_us() - start_us)

    def statistics(self) -> dict[str, float]:
        """Counts for reports; an answer is made at once, so that nothing is ever in flight."""
        return {
            "in_flight": 0.0,
            "queries": float(self._answered.total),
            "zones": float(len(self._zones) + len(self._adopted)),
            "zones_missing": float(self._table.missing),
        }
