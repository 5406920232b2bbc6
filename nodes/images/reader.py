"""Opens an image file, maps it, and finds nodes by name in its zones.

Theory of operation: a look-up hashes the key, walks a few slots (a 24-bit tag filters nearly all strangers), decodes
the node (``node.py`` checks it completely) and keeps it in a bounded table of decoded nodes. Nothing of the file is
believed before it is checked: extents and checksums at ``open_image``, each node when it is first touched.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

from raydns.schemas import images, names
from raydns.schemas.dns import Type
from raydns.schemas.errors import ImageError

from . import directory
from .node import Node, RRset, decode

NODES_KEPT_MAX: Final = 4096  # decoded nodes an image keeps: usually 1–2 KB each in Python, so 8 MB
NODE_KEPT_SIZE_MAX: Final = 2048  # larger nodes are decoded anew, so that the bound holds in octets too


class Image:
    """A mapped image file with its zones; immutable, closed when nobody answers from it any more.

    Args:
        path: for messages.
        data: the file's octets.
        handle: the open file, which the image then owns; -1: ``data`` is no file's.
    """

    def __init__(self, path: Path, data: mmap | bytes, handle: int = -1) -> None:
        self._handle = handle
        self._close_handle = weakref.finalize(self, os.close, handle) if handle >= 0 else None
        self._state_at_open = _state(handle)
        where = str(path)
        self.path = path
        self.directory = directory.read(data, where)
        self._data = data
        view = memoryview(data)
        sections = self.directory.sections
        self._views = [view]
        self.nodes_kept = 0
        """Decoded nodes that its zones keep, all together."""
        try:
            self.slots = self._numbers(view, sections[images.SectionKind.SLOTS], where)
            self.order = self._numbers(view, sections[images.SectionKind.ORDER], where)
            arena = sections[images.SectionKind.ARENA]
            self._arena_at = arena.offset
            self._arena_size = arena.size
            self.zones = self._read_zones(view, sections[images.SectionKind.ZONES], where)
        except BaseException:
            self.close()
            raise

    @property
    def touched(self) -> bool:
        """Whether somebody has written into the file since: checksums and nodes read before mean nothing then."""
        return _state(self._handle) != self._state_at_open

    def _numbers(self, view: memoryview, section: directory.Section, where: str) -> memoryview:
        if section.size != section.count * images.SLOT.size:
            raise ImageError(
                f"section {section.kind} has {section.size} octets for {section.count} elements", where=where
            )
        numbers = view[section.offset : section.offset + section.size].cast("Q")
        self._views.append(numbers)
        return numbers

    def _read_zones(self, view: memoryview, section: directory.Section, where: str) -> list[ImageZone]:
        count = self.directory.zone_count
        if count > images.ZONES_MAX or section.count != count or section.size != count * images.ZONE.size or not count:
            raise ImageError(f"{count} zones in {section.size} octets of section ZONES", where=where)
        raw = bytes(view[section.offset : section.offset + section.size])
        return [ImageZone(self, number, fields) for number, fields in enumerate(images.ZONE.iter_unpack(raw))]

    def node_at(self, offset: int) -> Node:
        """Decodes the node at an offset of the arena; raises ``ImageError`` where there is none."""
        where = f"{self.path}, arena octet {offset}"
        size = self._arena_size
        start = self._arena_at + offset
        if not 0 < offset <= size - images.NODE.size or offset % images.NODE_ALIGNMENT:
            raise ImageError("no node can stand there", where=where)
        length = int.from_bytes(self._data[start : start + 4], "little")
        if length < images.NODE.size or length > size - offset:
            raise ImageError(f"a node of {length} octets runs over the arena", where=where)
        return decode(self._data[start : start + length], where)

    def close(self) -> None:
        """Unmaps the file; the image must not be used afterwards. Closing twice is harmless."""
        if self._close_handle is not None:
            self._close_handle()
            self._handle = -1
        with contextlib.suppress(BufferError):  # somebody still walks its nodes: unmapped when the walk is dropped
            while self._views:
                self._views[-1].release()
                self._views.pop()
            if isinstance(self._data, mmap) and not self._data.closed:
                self._data.close()


class ImageZone:
    """One zone of an image."""

    __slots__ = (
        "_count",
        "_first",
        "_image",
        "_kept",
        "_order_count",
        "_order_first",
        "_probes",
        "_seed",
        "_slots",
        "apex",
        "apex_node",
        "epoch",
        "expire_s",
        "negative_soa",
        "negative_ttl",
        "records",
        "serial",
        "soa",
        "view",
    )

    def __init__(self, image: Image, number: int, fields: tuple[int, ...]) -> None:
        apex_at, self._first, self._count, self._order_first, self._order_count, self.records = fields[:6]
        self.epoch = fields[7]
        self.view, self.serial, self._seed, self._probes, self.expire_s, self.negative_ttl = fields[13:19]
        denial, expiry = fields[21:23]
        self._image = image
        self._kept: dict[bytes, Node] = {}
        where = f"{image.path}, zone {number}"
        slots = image.slots
        if self._count < 1 or self._first + self._count > len(slots) or self._count > 0xFFFFFFFF:
            raise ImageError("its slots lie outside the section", where=where)
        if self._order_count < 1 or self._order_first + self._order_count > len(image.order):
            raise ImageError("its order lies outside the section", where=where)
        if self._probes > images.PROBE_MAX or self._probes > self._count:
            raise ImageError(f"a longest probe of {self._probes}", where=where)
        if denial != images.Denial.NONE or expiry != images.Expiry.NEVER:
            raise ImageError("denial or expiry without the feature that announces it", where=where)
        self._slots = slots[self._first : self._first + self._count]
        image._views.append(self._slots)
        self.apex_node = image.node_at(apex_at)
        self.apex = self.apex_node.key
        """The apex in key form."""
        soa = self.apex_node.rrsets.get(Type.SOA)
        if soa is None or len(soa.records) != 1 or self.find(self.apex) is None:
            raise ImageError("its apex has no SOA, or is not found by its name", where=where)
        self.soa: RRset = soa
        self.negative_soa = soa.with_ttl(self.negative_ttl)
        """The SOA as negative answers carry it: TTL is the lesser of its own and MINIMUM (RFC 2308 section 3)."""

    @property
    def touched(self) -> bool:
        """See ``Image.touched``."""
        return self._image.touched

    def find(self, key: bytes) -> Node | None:
        """The node with exactly this name (key form), also below cuts; raises ``ImageError`` for a torn image."""
        kept = self._kept.get(key)
        if kept is not None:
            return kept
        hashed = images.name_hash(key, self._seed)
        tag = hashed & images.SLOT_TAG_MASK
        count = self._count
        index = ((hashed >> 32) * count) >> 32
        slots = self._slots
        for _ in range(self._probes):
            slot = slots[index]
            if not slot:
                return None
            if slot >> 40 == tag:
                node = self._image.node_at((slot & images.SLOT_OFFSET_MASK) << 3)
                if node.key == key:
                    if node.flags & images.NodeFlag.TOMBSTONE:
                        return None
                    self._keep(node)
                    return node
            index += 1
            if index == count:
                index = 0
        return None

    def _keep(self, node: Node) -> None:
        if node.size > NODE_KEPT_SIZE_MAX:
            return
        image = self._image
        if image.nodes_kept < NODES_KEPT_MAX:
            image.nodes_kept += 1
        elif self._kept:
            # Oldest first costs nothing; what is hot is decoded again at once.
            del self._kept[next(iter(self._kept))]
        else:
            return  # other zones of this image took all the room
        self._kept[node.key] = node

    def nodes(self) -> Iterator[Node]:
        """All nodes in canonical order (RFC 4034 section 6.1), empty non-terminals and occluded ones among them."""
        for entry in self._image.order[self._order_first : self._order_first + self._order_count]:
            yield self._image.node_at(entry << 3)

    def __repr__(self) -> str:
        return f"ImageZone({names.to_text(self.apex)} serial {self.serial} epoch {self.epoch})"


def open_image(path: Path) -> Image:
    """Maps an image file and checks it.

    Raises:
        ImageError: the file cannot be read, or is damaged, truncated, foreign or too new.
    """
    try:
        with path.open("rb") as file:
            if not file.seek(0, 2):
                raise ImageError("truncated: the file is empty", where=str(path), hint="fetch it again")
            data = mmap(file.fileno(), 0, access=ACCESS_READ)
            handle = os.dup(file.fileno())
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    try:
        return Image(path, data, handle)
    except ImageError:
        if not data.closed:
            data.close()
        raise


def _state(handle: int) -> tuple[int, int]:
    """Size and time of the last change of an open file, whatever its name is by now."""
    if handle < 0:
        return 0, 0
    found = os.fstat(handle)
    return found.st_size, found.st_mtime_ns
