"""Zone image format version 1: magic numbers, fixed structures and feature bits, for writer and reader alike.

The prose that a stranger needs is in ``docs/image-format.md``; both must say the same. Everything is
little-endian and 64-bit; all offsets in a section are relative to the section's start, all offsets in a node to the
node's start.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import Final

import mmh3

MAGIC: Final = b"RAYDNSZI"
FORMAT: Final = 1
BYTE_ORDER: Final = 0x0A0B0C0D  # reads 0x0D0C0B0A where writer and reader disagree
ALIGNMENT: Final = 64
FILE_IDENTIFIER: Final = b"RDZI"

# magic, byte order, format, preamble size, file size, directory offset, directory size, checksum, reserved
PREAMBLE: Final = struct.Struct("<8sIHHQQQ16s8x")
PREAMBLE_CHECKSUM_AT: Final = 40

# kind, flags, offset in the file, size in octets, count of elements, checksum
SECTION: Final = struct.Struct("<IIQQQ16s")
SECTIONS_MAX: Final = 64
ZONES_MAX: Final = 1 << 20

# apex node, first slot, slots, first order entry, order entries, records, RRsets, epoch, base's epoch (overlays),
# last good refresh (Unix s), first NSEC order entry, NSEC order entries | first NSEC3 chain, view, serial,
# hash seed, longest probe, expire s, negative TTL s, NSEC3 chains, flags, denial mode, expiry policy
ZONE: Final = struct.Struct("<12Q7IHHBB126x")
# slots: arena offset / 8 in the low 40 bits, 24 bits of hash above; zero is an empty slot
SLOT: Final = struct.Struct("<Q")
SLOT_OFFSET_BITS: Final = 40
SLOT_OFFSET_MASK: Final = (1 << SLOT_OFFSET_BITS) - 1
SLOT_TAG_MASK: Final = 0xFFFFFF
# order: arena offset / 8 of every node, in canonical order (RFC 4034 section 6.1)
ORDER: Final = struct.Struct("<Q")
# size, flags, RRsets, hook id, octets of the key, labels, reserved
NODE: Final = struct.Struct("<IHHIBBH")
NODE_ALIGNMENT: Final = 8
# type, RRs, TTL, records at, records size, name references at, name references, flags, extra block at, reserved
RRSET: Final = struct.Struct("<HHIIIIHHII")
# RR number or EVERY_RR, offset in RDATA, flags, reserved
NAME_REF: Final = struct.Struct("<HHHH")
EVERY_RR: Final = 0xFFFF
# extra block: RRSIGs, variants, variants at; then an entry an RRSIG: RDATA at, size, inception, expiration
EXTRA: Final = struct.Struct("<HHI")
EXTRA_RRSIG: Final = struct.Struct("<IIII")

PROBE_MAX: Final = 256  # a writer tries another seed before it probes further than this


class SectionKind(IntEnum):
    """What a section holds."""

    ZONES = 1
    SLOTS = 2
    ORDER = 3
    ARENA = 4
    NSEC_ORDER = 5  # place: like ORDER, only names that own an NSEC
    NSEC3_CHAINS = 6  # place: parameters and extent of each chain
    NSEC3_ORDER = 7  # place: hashes in order
    STEERING = 8  # place: what variants refer to


REQUIRED_SECTIONS: Final = (SectionKind.ZONES, SectionKind.SLOTS, SectionKind.ORDER, SectionKind.ARENA)


class SectionFlag(IntFlag):
    """How a reader treats a section whose kind it does not know."""

    MUST_UNDERSTAND = 1


class Feature(IntFlag):
    """Must-understand bits: a reader that lacks one cannot answer rightly, and refuses the image."""

    OVERLAY = 1  # stands on a base; holds tombstones
    SIGNATURES = 2  # RRsets carry RRSIGs in extra blocks
    DENIAL = 4  # denial mode is not NONE
    VARIANTS = 8  # RRsets carry variants for steering
    DYNAMIC = 16  # nodes that must be asked above
    EXPIRY = 32  # the zone may expire


class Hint(IntFlag):
    """May-ignore bits: a reader that does not know one still answers rightly."""

    SHARED = 1  # several zones in one image
    WRITTEN_OWNERS = 2  # some owner differs from its key in case


class ImageKind(IntEnum):
    """What an image stands for."""

    BASE = 0
    OVERLAY = 1


class NodeFlag(IntFlag):
    """Facts about a node itself; no node stores a fact about another one."""

    EMPTY = 1  # empty non-terminal: exists, owns nothing (RFC 4592 section 2.2.2)
    TOMBSTONE = 2  # overlays: the base's node is gone
    DYNAMIC = 4  # ask above, with the hook id
    OWNER = 8  # the owner as written follows the key (they differ in case)


class NameFlag(IntFlag):
    """What may be done with a name in RDATA."""

    COMPRESS = 1  # RFC 3597 section 4: a type of RFC 1035
    ADDITIONAL = 2  # its addresses are wanted in the additional section


class Denial(IntEnum):
    """How a zone proves that something does not exist."""

    NONE = 0
    NSEC = 1
    NSEC3 = 2
    COMPACT = 3  # RFC 9824
    ONLINE = 4


class Expiry(IntEnum):
    """Whether a zone may go out of date."""

    NEVER = 0  # our own zones
    AFTER_LAST_GOOD = 1  # transferred ones: last good refresh plus EXPIRE


def checksum(data: bytes | bytearray | memoryview) -> bytes:
    """MurmurHash3 x64 128, seed 0: finds damage at memory speed; against malice the file's SHA-256 name stands."""
    return mmh3.mmh3_x64_128_digest(data, 0)


def name_hash(key: bytes, seed: int) -> int:
    """Where a name in key form stands among a zone's slots: the first 64 bits of MurmurHash3 x64 128."""
    return mmh3.mmh3_x64_128_utupledigest(key, seed)[0]


def slot_index(name_hash_: int, slots: int) -> int:
    """The first slot to look at: the hash's upper half scaled to the table's exact size."""
    return ((name_hash_ >> 32) * slots) >> 32


def aligned(size: int, alignment: int = ALIGNMENT) -> int:
    """``size`` rounded up."""
    return -(-size // alignment) * alignment
