"""One pass over a reply's records: where each stands, who owns it, and whether the octets may be copied.

Rules of this file: the reply is hostile. Names that the pass has met are kept by their offset, so that a pointer
to one costs a look-up; a pointer to anywhere else is followed within limits and forbids copying, since what it
points at (a TTL, say) may be changed later. Nothing but ``BadReply`` is raised.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from raydns.schemas import dns, names

from .faults import BadReply, Fault
from .records import COMPRESSED_NAMES_MAX, COMPRESSIBLE, NAMES_IN_RDATA, expand_rdata, follow

_FIXED: Final = struct.Struct("!HHIH")
_FIXED_SIZES: Final = {1: 4, 28: 16}  # A (RFC 1035), AAAA (RFC 3596)
_NAPTR: Final = 35
_EDE_OPTIONS_MAX: Final = 32


class Entry(NamedTuple):
    """One record by its offsets; a tuple, since one is made for every record of every reply."""

    owner: bytes  # key form
    rtype: int
    ttl: int
    start: int  # of the owner
    ttl_at: int
    rdata_at: int
    end: int
    target: bytes  # key form: first name in rdata where the type has one
    rclass: int


class Scan:
    """What one pass found."""

    __slots__ = (
        "additional",
        "answer",
        "at",
        "authority",
        "copyable",
        "data",
        "ede",
        "ede_text",
        "has_opt",
        "odd",
        "rcode_high",
    )

    def __init__(self, data: bytes, key: bytes) -> None:
        self.data = data
        self.at: dict[int, bytes] = {dns.HEADER_SIZE: key}  # offsets of names met so far → key form
        self.answer: list[Entry] = []
        self.authority: list[Entry] = []
        self.additional = 0  # records there, OPT not counted
        self.copyable = True  # every pointer leads to a name, none stands where it must not
        self.odd = 0  # names that had to be followed
        self.has_opt = False
        self.rcode_high = 0  # upper eight bits of the rcode (RFC 6891 section 6.1.3)
        self.ede = -1
        self.ede_text = ""


def scan(data: bytes, position: int, key: bytes, counts: tuple[int, int, int]) -> Scan:
    """Reads all records behind the question.

    Args:
        data: the reply.
        position: the offset behind the question.
        key: the question's name in key form.
        counts: ANCOUNT, NSCOUNT, ARCOUNT.
    """
    found = Scan(data, key)
    position = _section(found, position, counts[0], found.answer)
    position = _section(found, position, counts[1], found.authority)
    position = _additional(found, position, counts[2])
    if position != len(data):
        raise BadReply(Fault.MALFORMED, "octets behind the last record")
    return found


def _section(found: Scan, position: int, count: int, out: list[Entry]) -> int:
    data = found.data
    size = len(data)
    at = found.at
    unpack = _FIXED.unpack_from
    for _ in range(count):
        start = position
        if position + 11 > size:  # an owner has one octet at least, and ten follow it
            raise BadReply(Fault.MALFORMED, "a record is truncated")
        if data[position] == 0xC0 and (owner := at.get(data[position + 1], b"")):
            position += 2
        else:
            owner, position = _name(found, position)
        if position + 10 > size:
            raise BadReply(Fault.MALFORMED, "a record is truncated")
        rtype, rclass, ttl, length = unpack(data, position)
        rdata_at = position + 10
        end = rdata_at + length
        if end > size:
            raise BadReply(Fault.MALFORMED, "a record's data runs over the end")
        if rtype == 41:
            raise BadReply(Fault.MALFORMED, "OPT outside the additional section")
        target = b""
        fixed = _FIXED_SIZES.get(rtype)
        if fixed is not None:
            if fixed != length and rclass == 1:
                raise BadReply(Fault.MALFORMED, "an address record has the wrong length")
        elif rtype in NAMES_IN_RDATA or rtype == _NAPTR:
            target = _rdata_names(found, rtype, rdata_at, end)
        out.append(Entry(owner, rtype, ttl, start, position + 4, rdata_at, end, target, rclass))
        position = end
    return position


def _additional(found: Scan, position: int, count: int) -> int:
    data = found.data
    size = len(data)
    for _ in range(count):
        start = position
        if position >= size:
            raise BadReply(Fault.MALFORMED, "a record is truncated")
        if data[position] == 0:
            position += 1
        else:
            _, position = _name(found, position)
        if position + 10 > size:
            raise BadReply(Fault.MALFORMED, "a record is truncated")
        rtype, _, ttl, length = _FIXED.unpack_from(data, position)
        position += 10
        if position + length > size:
            raise BadReply(Fault.MALFORMED, "a record's data runs over the end")
        if rtype != 41:
            found.additional += 1
        elif found.has_opt or data[start]:  # RFC 6891 section 6.1.1: one OPT, at the root
            raise BadReply(Fault.MALFORMED, "more than one OPT, or one that is not at the root")
        else:
            found.has_opt = True
            found.rcode_high = ttl >> 24
            if length:
                _read_ede(found, position, position + length)
        position += length
    return position


def _name(found: Scan, position: int) -> tuple[bytes, int]:
    """The name at ``position`` in key form and the offset behind it; remembers it and its suffixes."""
    data = found.data
    at = found.at
    size = len(data)
    start = position
    starts: list[int] = []
    while True:
        if position >= size:
            raise BadReply(Fault.MALFORMED, "a name runs over the end")
        octet = data[position]
        if octet == 0:
            key = data[start : position + 1].lower()
            position += 1
            break
        if octet >= 0xC0:
            if position + 2 > size:
                raise BadReply(Fault.MALFORMED, "a compression pointer is truncated")
            pointed = ((octet & 0x3F) << 8) | data[position + 1]
            tail = at.get(pointed)
            if tail is None:
                tail = _suffix_of_question(found, pointed)
            if tail is None:
                return _follow(found, start)
            key = data[start:position].lower() + tail
            position += 2
            break
        if octet > names.LABEL_SIZE_MAX:
            raise BadReply(Fault.MALFORMED, "an unknown label type")
        starts.append(position)
        position += octet + 1
    if len(key) > names.NAME_SIZE_MAX:
        raise BadReply(Fault.MALFORMED, "a name has more than 255 octets")
    for label_at in starts:
        at[label_at] = key[label_at - start :]
    return key, position


def _suffix_of_question(found: Scan, pointed: int) -> bytes | None:
    """Fills in the suffixes of the question's name, which only replies with partial compression need."""
    at = found.at
    key = at[dns.HEADER_SIZE]
    cut = pointed - dns.HEADER_SIZE
    if not 0 < cut < len(key):
        return None
    position = 0
    while key[position]:
        at.setdefault(dns.HEADER_SIZE + position, key[position:])
        position += key[position] + 1
    at.setdefault(dns.HEADER_SIZE + position, names.ROOT)
    return at.get(pointed)


def _follow(found: Scan, position: int) -> tuple[bytes, int]:
    found.copyable = False
    found.odd += 1
    if found.odd > COMPRESSED_NAMES_MAX:
        raise BadReply(Fault.MALFORMED, "too many names with unusual pointers")
    name, behind = follow(found.data, position)
    return name.lower(), behind


def _rdata_names(found: Scan, rtype: int, position: int, end: int) -> bytes:
    """Checks and remembers the names in rdata; returns the first."""
    form = NAMES_IN_RDATA.get(rtype)
    if form is None or form[2] < 0:  # NAPTR and the obsolete ones: checked by expanding
        expanded = expand_rdata(found.data, position, end, rtype)
        if len(expanded) != end - position:
            found.copyable = False
        return b""
    before, count, behind = form
    at = position + before
    first = b""
    for index in range(count):
        if at >= end:
            raise BadReply(Fault.MALFORMED, "a record's data is too short")
        name_at = at
        name, at = _name(found, at)
        if not index:
            first = name
        if at - name_at != len(name) and rtype not in COMPRESSIBLE:
            found.copyable = False  # compressed where RFC 3597 section 4 forbids it: readable, not to be passed on
    if end - at != behind:
        raise BadReply(Fault.MALFORMED, "a record's data has the wrong length")
    return first


def _read_ede(found: Scan, position: int, end: int) -> None:
    data = found.data
    for _ in range(_EDE_OPTIONS_MAX):
        if position + 4 > end:
            break
        code = (data[position] << 8) | data[position + 1]
        length = (data[position + 2] << 8) | data[position + 3]
        position += 4
        if position + length > end:
            raise BadReply(Fault.MALFORMED, "an EDNS option runs over the end of OPT")
        if code == 15 and length >= 2 and found.ede < 0:  # RFC 8914 section 2
            found.ede = (data[position] << 8) | data[position + 1]
            found.ede_text = data[position + 2 : position + min(length, 128)].decode("utf-8", "replace").rstrip("\x00")
        position += length
    if position != end and position + 4 > end:
        raise BadReply(Fault.MALFORMED, "an EDNS option is truncated")
