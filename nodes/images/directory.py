"""Preamble, FlatBuffers directory and sections of an image file, each checked before anything in it is believed.

Theory of operation: the ``flatbuffers`` package reads without checking a bound and costs 250 ms of import
(libraries.md), so the ten fields of the directory are read by hand here; every offset goes through ``_Cursor``.
Every octet of the file is under a checksum: the preamble's covers itself and the directory, each section's covers
the section and the zeros up to the next 64-octet line, where the next section starts.
"""

from __future__ import annotations

import struct
import sys
from mmap import mmap
from typing import Final

import msgspec

from raydns.schemas import images
from raydns.schemas.errors import ImageError

_SUPPORTED: Final = images.Feature(0)  # base images without signatures; each feature is added with its code
_KNOWN_KINDS: Final = frozenset(images.SectionKind)
_U16: Final = struct.Struct("<H")
_I32: Final = struct.Struct("<i")
_U32: Final = struct.Struct("<I")


class Section(msgspec.Struct, frozen=True):
    """One checked section."""

    kind: int
    flags: int
    offset: int
    size: int
    count: int
    checksum: bytes


class Directory(msgspec.Struct, frozen=True):
    """What the file says of itself."""

    must_understand: int
    may_ignore: int
    kind: int
    zone_count: int
    writer: str
    base_sha256: bytes
    sections: dict[int, Section]


def read(data: mmap | bytes, where: str) -> Directory:
    """Reads and checks everything but the contents of zones; raises ``ImageError`` that says what and where."""
    size = len(data)
    at, length = _preamble(data, size, where)
    directory = _directory(data[at : at + length], where)
    _refuse_unknown_features(directory, where)
    end = _check_extents(directory, images.aligned(at + length), size, where)
    if end != size:
        raise ImageError(f"{size - end} octets behind the last section", where=f"{where}, octet {end}")
    _check_sums(data, directory, where)
    return directory


def _preamble(data: mmap | bytes, size: int, where: str) -> tuple[int, int]:
    if size < images.PREAMBLE.size:
        raise ImageError(
            f"truncated: {size} octets, a preamble alone has {images.PREAMBLE.size}", where=where, hint="fetch it again"
        )
    fields = images.PREAMBLE.unpack_from(data)
    magic, order, version, preamble_size, file_size, at, length, expected = fields
    if magic != images.MAGIC:
        raise ImageError("foreign: this is no zone image of raydns", where=f"{where}, octet 0")
    if order != images.BYTE_ORDER or sys.byteorder != "little":
        raise ImageError("foreign byte order: this reader maps little-endian images", where=f"{where}, octet 8")
    if version != images.FORMAT:
        raise ImageError(
            f"format {version}; this reader knows {images.FORMAT}",
            where=f"{where}, octet 12",
            hint="too new: upgrade this machine, or load the zone again on it",
        )
    if file_size != size:
        problem = "truncated" if size < file_size else "too long"
        raise ImageError(f"{problem}: {size} octets, it says {file_size}", where=where, hint="fetch it again")
    if preamble_size != images.PREAMBLE.size or at != preamble_size or length > size - at or length < 8:
        raise ImageError("the directory lies outside the file", where=f"{where}, octet 24")
    zeroed = bytearray(data[: images.aligned(at + length)])
    zeroed[images.PREAMBLE_CHECKSUM_AT : images.PREAMBLE_CHECKSUM_AT + 16] = bytes(16)
    if images.checksum(zeroed) != expected:
        raise ImageError("damaged: preamble or directory fails its checksum", where=f"{where}, octet 0")
    return at, length


class _Cursor:
    """Bounds-checked reads of a FlatBuffers buffer."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where

    def take(self, layout: struct.Struct, at: int) -> int:
        """One number; raises where it lies outside."""
        if at < 0 or at + layout.size > len(self.data):
            raise ImageError("the directory points outside itself", where=f"{self.where}, directory octet {at}")
        value: int = layout.unpack_from(self.data, at)[0]
        return value

    def span(self, at: int, length: int) -> bytes:
        """``length`` octets; raises where they lie outside."""
        if at < 0 or length < 0 or at + length > len(self.data):
            raise ImageError("the directory points outside itself", where=f"{self.where}, directory octet {at}")
        return self.data[at : at + length]


class _Table:
    """One FlatBuffers table: fields by number, through its vtable."""

    def __init__(self, cursor: _Cursor, at: int) -> None:
        self.cursor = cursor
        self.at = at
        self.vtable = at - cursor.take(_I32, at)
        self.vtable_size = cursor.take(_U16, self.vtable)

    def field(self, number: int) -> int:
        """Where a field stands; 0 where it has its default."""
        entry = 4 + 2 * number
        if entry + 2 > self.vtable_size:
            return 0
        offset = self.cursor.take(_U16, self.vtable + entry)
        return self.at + offset if offset else 0

    def number(self, number: int, code: str) -> int:
        """A scalar field."""
        at = self.field(number)
        return self.cursor.take(struct.Struct("<" + code), at) if at else 0

    def vector(self, number: int, element: int) -> tuple[int, bytes]:
        """A vector field: its count and its octets."""
        at = self.field(number)
        if not at:
            return 0, b""
        at += self.cursor.take(_U32, at)
        count = self.cursor.take(_U32, at)
        return count, self.cursor.span(at + 4, count * element)


def _directory(data: bytes, where: str) -> Directory:
    cursor = _Cursor(data, where)
    if cursor.span(4, 4) != images.FILE_IDENTIFIER:
        raise ImageError("foreign: the directory has another identifier", where=f"{where}, directory octet 4")
    table = _Table(cursor, cursor.take(_U32, 0))
    count, raw = table.vector(6, images.SECTION.size)
    if count > images.SECTIONS_MAX:
        raise ImageError(f"{count} sections; at most {images.SECTIONS_MAX}", where=where)
    sections: dict[int, Section] = {}
    for fields in images.SECTION.iter_unpack(raw):
        section = Section(*fields)
        if section.kind in sections:
            raise ImageError(f"two sections of kind {section.kind}", where=where)
        sections[section.kind] = section
    return Directory(
        must_understand=table.number(0, "Q"),
        may_ignore=table.number(1, "Q"),
        kind=table.number(2, "B"),
        zone_count=table.number(3, "I"),
        writer=table.vector(4, 1)[1].decode("utf-8", "replace"),
        base_sha256=table.vector(5, 1)[1],
        sections=sections,
    )


def _refuse_unknown_features(directory: Directory, where: str) -> None:
    unknown = directory.must_understand & ~int(_SUPPORTED)
    if unknown:
        known_names = [bit.name or "" for bit in images.Feature if bit & unknown]
        rest = unknown & ~sum(images.Feature)
        named = known_names + ([f"bits {rest:#x}"] if rest else [])
        raise ImageError(
            f"needs features that this reader lacks: {', '.join(named)}",
            where=where,
            hint="too new: upgrade this machine",
        )
    if directory.kind != images.ImageKind.BASE:
        raise ImageError(f"image kind {directory.kind}; this reader knows base images", where=where)
    for section in directory.sections.values():
        if section.kind not in _KNOWN_KINDS and section.flags & images.SectionFlag.MUST_UNDERSTAND:
            raise ImageError(
                f"section kind {section.kind} must be understood and is not", where=where, hint="upgrade this machine"
            )
    for kind in images.REQUIRED_SECTIONS:
        if kind not in directory.sections:
            raise ImageError(f"section {kind.name} is missing", where=where)


def _check_extents(directory: Directory, end: int, size: int, where: str) -> int:
    # Sections follow each other without a gap, so that no octet escapes the checksums.
    for section in sorted(directory.sections.values(), key=lambda s: s.offset):
        if section.offset != end or section.size > size - end:
            raise ImageError(
                f"section {section.kind} lies at {section.offset} with {section.size} octets, expected at {end}",
                where=where,
            )
        end += images.aligned(section.size)
    return end


def _check_sums(data: mmap | bytes, directory: Directory, where: str) -> None:
    with memoryview(data) as view:
        for section in directory.sections.values():
            with view[section.offset : section.offset + images.aligned(section.size)] as octets:
                if images.checksum(octets) != section.checksum:
                    raise ImageError(
                        f"damaged: section {section.kind} fails its checksum",
                        where=f"{where}, octets {section.offset} to {section.offset + section.size}",
                        hint="fetch it again",
                    )
