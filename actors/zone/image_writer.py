"""Writes zone images of format version 1 (``docs/image-format.md``): the same zones give the same octets, always.

Theory of operation: zones in order of view and apex, names in canonical order, types in ascending order, records in
the order of the master file; the hash seed is the first of 0, 1, 2… whose longest probe stays short. So a file named
by its SHA-256 says by its name whether anything changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import flatbuffers
import msgspec

from raydns.schemas import images, names
from raydns.schemas.errors import ZoneFileError
from raydns.schemas.images import Hint, NodeFlag, SectionKind

from .rdata_names import TYPES_WITH_NAMES, references
from .zone_data import RRsetData, ZoneData

WRITER: Final = "raydns"
_SLOT_LOAD: Final = (8, 5)  # slots a name: 62 % full, four probes for a name that is not there
_SEEDS_MAX: Final = 64
_RR_CLASS: Final = b"\x00\x01"
_PADDING: Final = bytes(images.ALIGNMENT)


class ZoneSource(msgspec.Struct, frozen=True):
    """A zone that goes into an image."""

    data: ZoneData
    view: int = 0
    epoch: int = 0


class _Parts:
    """Sections while they grow."""

    def __init__(self) -> None:
        self.zones = bytearray()
        self.slots = bytearray()
        self.order = bytearray()
        self.arena = bytearray(images.NODE_ALIGNMENT)  # offset 0 is no node
        self.hints = Hint(0)


def build(sources: Sequence[ZoneSource]) -> bytes:
    """One image of one zone, or of several small ones.

    Raises:
        ZoneFileError: there is no zone, or one without SOA: an empty image is never made.
    """
    if not sources:
        raise ZoneFileError("an image without a zone is never made")
    parts = _Parts()
    if len(sources) > 1:
        parts.hints |= Hint.SHARED
    ordered = sorted(sources, key=lambda source: (source.view, names.canonical_key(source.data.apex)))
    for source in ordered:
        _write_zone(parts, source)
    sections = {
        SectionKind.ZONES: (parts.zones, len(sources)),
        SectionKind.SLOTS: (parts.slots, len(parts.slots) // images.SLOT.size),
        SectionKind.ORDER: (parts.order, len(parts.order) // images.ORDER.size),
        SectionKind.ARENA: (parts.arena, len(parts.order) // images.ORDER.size),
    }
    return _assemble(sections, _hints(parts.hints), len(sources))


def _write_zone(parts: _Parts, source: ZoneSource) -> None:
    data = source.data
    if data.apex not in data.names or _soa_is_missing(data):
        raise ZoneFileError("a zone without SOA is never published", where=names.to_text(data.apex))
    keys = _with_empty_non_terminals(data)
    offsets: list[int] = []
    arena = parts.arena
    rrsets = 0
    for key in keys:
        offsets.append(len(arena))
        at_name = data.names.get(key, {})
        rrsets += len(at_name)
        arena += _node(key, data.owners.get(key, key), at_name)
        if key in data.owners:
            parts.hints |= Hint.WRITTEN_OWNERS
    first_slot = len(parts.slots) // images.SLOT.size
    slots, seed, probes = _hash_slots(keys, offsets)
    parts.slots += slots
    first_order = len(parts.order) // images.ORDER.size
    parts.order += b"".join([images.ORDER.pack(offset >> 3) for offset in offsets])
    parts.zones += images.ZONE.pack(
        offsets[0],  # canonical order puts the apex first
        first_slot,
        len(slots) // images.SLOT.size,
        first_order,
        len(keys),
        data.records,
        rrsets,
        source.epoch,
        0,
        0,
        0,
        0,
        0,
        source.view,
        data.serial,
        seed,
        probes,
        0,
        min(data.soa.ttl, data.minimum),  # RFC 2308 section 3
        0,
        0,
        images.Denial.NONE,
        images.Expiry.NEVER,
    )


def _soa_is_missing(data: ZoneData) -> bool:
    soa = data.names[data.apex].get(6)
    return soa is None or len(soa.rdatas) != 1


def _with_empty_non_terminals(data: ZoneData) -> list[bytes]:
    found = set(data.names)
    apex_size = len(data.apex)
    for key in data.names:
        position = key[0] + 1 if key[0] else 0
        while len(key) - position > apex_size:
            ancestor = key[position:]
            if ancestor in found:
                break  # its own ancestors are or will be there
            found.add(ancestor)
            position += key[position] + 1
    return sorted(found, key=names.canonical_key)


def _node(key: bytes, owner: bytes, rrsets: dict[int, RRsetData]) -> bytes:
    flags = 0 if rrsets else int(NodeFlag.EMPTY)
    head = key
    if owner != key:
        flags |= NodeFlag.OWNER
        head = key + owner
    position = images.aligned(images.NODE.size + len(head), images.NODE_ALIGNMENT)
    head += _PADDING[: position - images.NODE.size - len(head)]
    table: list[bytes] = []
    body: list[bytes] = []
    position += images.RRSET.size * len(rrsets)
    for rtype in sorted(rrsets):
        rrset = rrsets[rtype]
        refs = b""
        if rtype in TYPES_WITH_NAMES:
            refs = b"".join([images.NAME_REF.pack(*ref, 0) for ref in references(rtype, rrset.rdatas)])
        fixed = rtype.to_bytes(2, "big") + _RR_CLASS + rrset.ttl.to_bytes(4, "big")
        records = b"".join([fixed + len(rdata).to_bytes(2, "big") + rdata for rdata in rrset.rdatas])
        refs_at = position if refs else 0
        position += len(refs)
        table.append(
            images.RRSET.pack(
                rtype,
                len(rrset.rdatas),
                rrset.ttl,
                position,
                len(records),
                refs_at,
                len(refs) // images.NAME_REF.size,
                0,
                0,
                0,
            )
        )
        position += len(records)
        body += (refs, records)
    size = images.aligned(position, images.NODE_ALIGNMENT)
    fixed_part = images.NODE.pack(size, flags, len(rrsets), 0, len(key), names.label_count(key), 0)
    return b"".join((fixed_part, head, *table, *body, _PADDING[: size - position]))


def _hash_slots(keys: list[bytes], offsets: list[int]) -> tuple[bytes, int, int]:
    count = max(4, len(keys) * _SLOT_LOAD[0] // _SLOT_LOAD[1] + 1)
    for seed in range(_SEEDS_MAX):
        slots = [0] * count
        longest = 0
        for key, offset in zip(keys, offsets, strict=True):
            hashed = images.name_hash(key, seed)
            index = images.slot_index(hashed, count)
            probe = 1
            while slots[index]:
                index = (index + 1) % count
                probe += 1
            slots[index] = ((hashed & images.SLOT_TAG_MASK) << images.SLOT_OFFSET_BITS) | (offset >> 3)
            longest = max(longest, probe)
            if probe > images.PROBE_MAX:
                break
        # One more than the longest probe of a hit lets a miss end at an empty slot or here.
        if longest <= images.PROBE_MAX:
            return b"".join([images.SLOT.pack(slot) for slot in slots]), seed, min(longest, count)
    raise ZoneFileError(f"no hash seed places {len(keys)} names", hint="report this: it should never happen")


def _assemble(sections: dict[SectionKind, tuple[bytearray, int]], hints: int, zones: int) -> bytes:
    for octets, _ in sections.values():
        octets += _PADDING[: -len(octets) % images.ALIGNMENT]
    # The directory's size does not depend on the numbers in it: build once for the size, once for good.
    size = len(_directory(sections, hints, zones, 0))
    first = images.aligned(images.PREAMBLE.size + size)
    directory = _directory(sections, hints, zones, first)
    total = first + sum(len(octets) for octets, _ in sections.values())
    head = bytearray(
        images.PREAMBLE.pack(
            images.MAGIC,
            images.BYTE_ORDER,
            images.FORMAT,
            images.PREAMBLE.size,
            total,
            images.PREAMBLE.size,
            len(directory),
            bytes(16),
        )
    )
    head += directory
    head += _PADDING[: first - len(head)]
    at = images.PREAMBLE_CHECKSUM_AT
    head[at : at + 16] = images.checksum(head)
    return b"".join((head, *[octets for octets, _ in sections.values()]))


def _hints(hints: Hint) -> int:
    return int(hints)


def _must_understand() -> int:
    return 0  # a base image without signatures, denial, variants or hooks needs nothing of its reader


def _directory(sections: dict[SectionKind, tuple[bytearray, int]], hints: int, zones: int, first: int) -> bytes:
    """The FlatBuffers table ``Directory`` of ``docs/image-format.md``."""
    builder = flatbuffers.Builder(512)
    writer = builder.CreateString(WRITER)
    entries: list[tuple[int, int, int, int, bytes]] = []
    offset = first
    for kind, (octets, count) in sections.items():
        size = count * _ELEMENT_SIZES[kind] if kind in _ELEMENT_SIZES else len(octets)
        entries.append((int(kind), offset, size, count, images.checksum(octets)))
        offset += len(octets)
    builder.StartVector(images.SECTION.size, len(entries), 8)
    for kind_number, at, size, count, digest in reversed(entries):
        builder.Prep(8, images.SECTION.size)
        builder.PrependUint64(int.from_bytes(digest[8:], "little"))
        builder.PrependUint64(int.from_bytes(digest[:8], "little"))
        builder.PrependUint64(count)
        builder.PrependUint64(size)
        builder.PrependUint64(at)
        builder.PrependUint32(images.SectionFlag.MUST_UNDERSTAND)
        builder.PrependUint32(kind_number)
    vector = builder.EndVector()
    builder.StartObject(7)
    builder.PrependUint64Slot(0, int(_must_understand()), 0)
    builder.PrependUint64Slot(1, hints, 0)
    builder.PrependUint8Slot(2, images.ImageKind.BASE, 0)
    builder.PrependUint32Slot(3, zones, 0)
    builder.PrependUOffsetTRelativeSlot(4, writer, 0)
    builder.PrependUOffsetTRelativeSlot(6, vector, 0)
    builder.Finish(builder.EndObject(), file_identifier=images.FILE_IDENTIFIER)
    return bytes(builder.Output())


_ELEMENT_SIZES: Final = {
    SectionKind.ZONES: images.ZONE.size,
    SectionKind.SLOTS: images.SLOT.size,
    SectionKind.ORDER: images.ORDER.size,
}
