"""Records as values, for the few messages that must be rendered anew: names expanded, rdata without pointers.

The usual reply is copied and never comes here. Rendering compresses owner names and the names of RFC 1035
types only (RFC 3597 section 4), and at most ``COMPRESSED_NAMES_MAX`` of them: looking for a shared suffix is
work that the author of a reply can ask for.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from raydns.schemas import dns, names
from raydns.schemas.errors import MessageError

from .faults import BadReply, Fault

COMPRESSED_NAMES_MAX: Final = 120  # design: limits; CVE-2024-8508
POINTER_STEPS_MAX: Final = 256
POINTER_TARGET_MAX: Final = 0x3FFF

_HEADER: Final = struct.Struct("!HHHHHH")
_FIXED: Final = struct.Struct("!HHIH")

# Types whose rdata holds names that a sender may have compressed (RFC 1035 section 3.3, RFC 3597 section 4):
# octets in front of the first name, number of names, octets behind the last (-1: any).
NAMES_IN_RDATA: Final[dict[int, tuple[int, int, int]]] = {
    2: (0, 1, 0),  # NS
    3: (0, 1, 0),  # MD
    4: (0, 1, 0),  # MF
    5: (0, 1, 0),  # CNAME
    6: (0, 2, 20),  # SOA
    7: (0, 1, 0),  # MB
    8: (0, 1, 0),  # MG
    9: (0, 1, 0),  # MR
    12: (0, 1, 0),  # PTR
    14: (0, 2, 0),  # MINFO
    15: (2, 1, 0),  # MX
    17: (0, 2, 0),  # RP
    18: (2, 1, 0),  # AFSDB
    21: (2, 1, 0),  # RT
    24: (18, 1, -1),  # SIG
    26: (2, 2, 0),  # PX
    30: (0, 1, -1),  # NXT
    33: (6, 1, 0),  # SRV
    36: (2, 1, 0),  # KX
    39: (0, 1, 0),  # DNAME
}
COMPRESSIBLE: Final = frozenset({2, 5, 6, 12, 15})
"""Types whose names we compress ourselves; every resolver has always understood these."""
_NAPTR: Final = 35


class Record(msgspec.Struct, gc=False):
    """One record with nothing left to look up elsewhere."""

    owner: bytes  # wire, uncompressed, case as written
    rtype: int
    rclass: int
    ttl: int
    rdata: bytes  # names in it uncompressed


def follow(data: bytes, position: int) -> tuple[bytes, int]:
    """The uncompressed name at ``position`` and the offset behind it, wherever its pointers lead backwards.

    Raises:
        BadReply: pointers forward, into the header, too many steps, or a name that is too long.
    """
    parts: list[bytes] = []
    total = 1
    behind = -1
    limit = position
    size = len(data)
    for _ in range(POINTER_STEPS_MAX):
        if position >= size:
            raise BadReply(Fault.MALFORMED, "a name runs over the end")
        octet = data[position]
        if octet == 0:
            parts.append(b"\x00")
            return b"".join(parts), behind if behind >= 0 else position + 1
        if octet >= 0xC0:
            if position + 2 > size:
                raise BadReply(Fault.MALFORMED, "a compression pointer is truncated")
            if behind < 0:
                behind = position + 2
            position = ((octet & 0x3F) << 8) | data[position + 1]
            # A pointer into the header would change its meaning with the ID.
            if not dns.HEADER_SIZE <= position < limit:
                raise BadReply(Fault.MALFORMED, "a compression pointer does not point backwards to a name")
            limit = position
            continue
        if octet > names.LABEL_SIZE_MAX:
            raise BadReply(Fault.MALFORMED, "an unknown label type")
        end = position + octet + 1
        total += octet + 1
        if total > names.NAME_SIZE_MAX or end > size:
            raise BadReply(Fault.MALFORMED, "a name is too long")
        parts.append(data[position:end])
        position = end
    raise BadReply(Fault.MALFORMED, "a name has too many steps")


def expand_rdata(data: bytes, position: int, end: int, rtype: int) -> bytes:
    """The rdata with every name in it uncompressed; raises ``BadReply`` where it breaks its type's form."""
    if rtype == _NAPTR:
        at = _naptr_name(data, position, end)
    else:
        form = NAMES_IN_RDATA.get(rtype)
        if form is None:
            return data[position:end]
        at = position + form[0]
    count, behind = (1, 0) if rtype == _NAPTR else NAMES_IN_RDATA[rtype][1:]
    parts = [data[position:at]]
    for _ in range(count):
        if at >= end:
            raise BadReply(Fault.MALFORMED, "a record's data is too short")
        name, at = follow(data, at)
        parts.append(name)
    if at > end or (behind >= 0 and end - at != behind):
        raise BadReply(Fault.MALFORMED, "a record's data has the wrong length")
    parts.append(data[at:end])
    return b"".join(parts)


def _naptr_name(data: bytes, position: int, end: int) -> int:
    at = position + 4
    for _ in range(3):
        if at >= end:
            raise BadReply(Fault.MALFORMED, "a NAPTR record is too short")
        at += data[at] + 1
    return at


def read_section(data: bytes, position: int, count: int) -> tuple[list[Record], int]:
    """``count`` records from ``position`` on, OPT left out, and the offset behind them; raises ``BadReply``."""
    found: list[Record] = []
    size = len(data)
    for _ in range(count):
        owner, position = follow(data, position)
        if position + 10 > size:
            raise BadReply(Fault.MALFORMED, "a record is truncated")
        rtype, rclass, ttl, length = _FIXED.unpack_from(data, position)
        position += 10
        end = position + length
        if end > size:
            raise BadReply(Fault.MALFORMED, "a record's data runs over the end")
        if rtype != dns.Type.OPT:
            found.append(Record(owner, rtype, rclass, ttl, expand_rdata(data, position, end, rtype)))
        position = end
    return found, position


def render(flags: int, question: bytes, answer: list[Record], authority: list[Record]) -> bytes:
    """A message with ID 0 out of records; raises ``MessageError`` above 65,535 octets.

    Args:
        flags: the 16-bit word at offset 2.
        question: the question section: name, type and class.
        answer: in the order in which they shall stand.
        authority: likewise.
    """
    out = bytearray(_HEADER.pack(0, flags, 1, len(answer), len(authority), 0))
    out += question
    known: dict[bytes, int] = {}
    _remember(known, question[:-4].lower(), dns.HEADER_SIZE)
    left = COMPRESSED_NAMES_MAX
    for record in (*answer, *authority):
        left = _write_name(out, record.owner, known, left)
        rdata = record.rdata
        if record.rtype not in COMPRESSIBLE or left <= 0:
            out += _FIXED.pack(record.rtype, record.rclass, record.ttl, len(rdata))
            out += rdata
        else:
            length_at = len(out) + 8
            out += _FIXED.pack(record.rtype, record.rclass, record.ttl, 0)
            left = _write_rdata(out, rdata, record.rtype, known, left)
            out[length_at : length_at + 2] = (len(out) - length_at - 2).to_bytes(2, "big")
    if len(out) > dns.MESSAGE_SIZE_MAX:
        raise MessageError(f"a message of {len(out)} octets; at most {dns.MESSAGE_SIZE_MAX}")
    return bytes(out)


def _write_rdata(out: bytearray, rdata: bytes, rtype: int, known: dict[bytes, int], left: int) -> int:
    at, count, _ = NAMES_IN_RDATA[rtype]
    out += rdata[:at]
    for _ in range(count):
        end = at
        while rdata[end]:
            end += rdata[end] + 1
        left = _write_name(out, rdata[at : end + 1], known, left)
        at = end + 1
    out += rdata[at:]
    return left


def _write_name(out: bytearray, name: bytes, known: dict[bytes, int], left: int) -> int:
    key = name.lower()
    offset = known.get(key)
    if offset is not None:  # one look-up: costs nothing of the limit
        out += (0xC000 | offset).to_bytes(2, "big")
        return left
    if left <= 0 or len(name) == 1:
        out += name
        return left
    position = 0
    base = len(out)
    while key[position]:
        offset = known.get(key[position:])
        if offset is not None:
            _remember(known, key, base, position)
            out += name[:position]
            out += (0xC000 | offset).to_bytes(2, "big")
            return left - 1
        position += key[position] + 1
    _remember(known, key, base)
    out += name
    return left - 1


def _remember(known: dict[bytes, int], key: bytes, base: int, end: int = names.NAME_SIZE_MAX) -> None:
    position = 0
    while key[position] and position < end and base + position <= POINTER_TARGET_MAX:
        known.setdefault(key[position:], base + position)
        position += key[position] + 1
