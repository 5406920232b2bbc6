"""Views of a DNS message that read what the data path needs and nothing more, and the small answers we make.

Rules of this file: a packet is hostile; every read is bounds-checked, by us or by ``struct``; every function
raises ``MessageError`` and nothing else for whatever bytes it is given; nothing here builds an object a record.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from raydns.schemas import dns
from raydns.schemas.errors import MessageError

_HEADER: Final = struct.Struct("!HHHHHH")
_TYPE_CLASS: Final = struct.Struct("!HH")
_RR: Final = struct.Struct("!HHIH")
_OPTION: Final = struct.Struct("!HH")
LAYOUT: Final = struct.Struct("<HHBB")

POINTER_STEPS_MAX: Final = 256
EDNS_OPTIONS_MAX: Final = 32


class Edns(msgspec.Struct, frozen=True, gc=False):
    """A query's OPT record (RFC 6891), options by code, the first of each code wins."""

    udp_size: int
    version: int
    do: bool
    options: dict[int, bytes]


class Query(msgspec.Struct, frozen=True, gc=False):
    """What the data path knows of a query: everything but records that no query of ours carries."""

    id: int
    flags: int  # the 16-bit word at offset 2
    qname: bytes  # wire form, as asked: case preserved
    key: bytes  # qname in key form
    qtype: int
    qclass: int
    question_end: int  # offset behind the question
    edns: Edns | None

    @property
    def opcode(self) -> int:
        """The operation code (RFC 1035 section 4.1.1)."""
        return (self.flags & dns.OPCODE_MASK) >> 11

    @property
    def rd(self) -> bool:
        """Whether recursion is desired."""
        return bool(self.flags & dns.RD)

    @property
    def cd(self) -> bool:
        """Whether the client wants to do its own checking (RFC 4035 section 3.2.2)."""
        return bool(self.flags & dns.CD)

    @property
    def do(self) -> bool:
        """Whether DNSSEC records are wanted (RFC 3225)."""
        return self.edns is not None and self.edns.do


class NotAQuery(MessageError):
    """Too short to answer, or itself a response: silence is the only right reply (RFC 1035, 9619)."""

    code = "wire.not_a_query"


class BadQuery(MessageError):
    """A query that can be answered with an error: carries what the reply needs."""

    code = "wire.bad_query"

    def __init__(self, message: str, *, rcode: int = dns.Rcode.FORMERR, edns: bool = False) -> None:
        super().__init__(message)
        self.rcode = rcode
        self.edns = edns

    def __reduce__(self) -> tuple[object, ...]:
        return (BadQuery, (self.message,))


def parse_query(data: bytes) -> Query:
    """Reads a query: header, its one question, and OPT among what follows.

    Args:
        data: the whole message.

    Raises:
        NotAQuery: fewer than 12 octets, or QR is set: never answered.
        BadQuery: answer it with the ``rcode`` it carries (FORMERR; BADVERS, RFC 6891 section 6.1.3).
    """
    size = len(data)
    if size < dns.HEADER_SIZE or data[2] & 0x80:
        raise NotAQuery("not a query")
    ident, flags, qdcount, ancount, nscount, arcount = _HEADER.unpack_from(data)
    if qdcount != 1:  # RFC 9619: QDCOUNT above 1 is FORMERR; 0 has nothing that we could answer
        raise BadQuery(f"QDCOUNT is {qdcount}")
    position = dns.HEADER_SIZE
    while True:
        if position >= size:
            raise BadQuery("the question's name runs over the end")
        octet = data[position]
        if octet == 0:
            break
        if octet > 63:  # a pointer has nothing to point at here; 0x40 and 0x80 are reserved
            raise BadQuery("the question's name is compressed or has an unknown label type")
        position += octet + 1
    position += 1
    if position - dns.HEADER_SIZE > 255 or position + 4 > size:
        raise BadQuery("the question is truncated or its name longer than 255 octets")
    qname = data[dns.HEADER_SIZE : position]
    qtype, qclass = _TYPE_CLASS.unpack_from(data, position)
    position += 4
    edns = None
    if arcount or ancount or nscount:
        edns = _find_edns(data, position, ancount + nscount, arcount)
    elif position != size and flags & dns.OPCODE_MASK == 0:
        raise BadQuery("octets behind the last record")
    return Query(ident, flags, qname, qname.lower(), qtype, qclass, position, edns)


def _find_edns(data: bytes, position: int, before: int, additional: int) -> Edns | None:
    edns = None
    size = len(data)
    for index in range(before + additional):
        start = position
        position = skip_name(data, position)
        if position + 10 > size:
            raise BadQuery("a record is truncated")
        rtype, rclass, ttl, rdlength = _RR.unpack_from(data, position)
        position += 10
        if position + rdlength > size:
            raise BadQuery("a record's data runs over the end")
        if rtype == dns.Type.OPT and index >= before:
            if edns is not None or data[start] != 0:  # RFC 6891 section 6.1.1: one OPT, at the root
                raise BadQuery("more than one OPT, or one that is not at the root")
            if (ttl >> 16) & 0xFF:
                raise BadQuery("EDNS version is not 0", rcode=dns.Rcode.BADVERS, edns=True)
            edns = Edns(rclass, 0, bool(ttl & 0x8000), parse_options(data, position, rdlength))
        position += rdlength
    if position != size:
        raise BadQuery("octets behind the last record")
    return edns


def parse_options(data: bytes, position: int, length: int) -> dict[int, bytes]:
    """Reads EDNS options (RFC 6891 section 6.1.2); at most 32 are read, the first of a code wins."""
    options: dict[int, bytes] = {}
    end = position + length
    count = 0
    while position < end:
        if position + 4 > end:
            raise BadQuery("an EDNS option is truncated")
        code, size = _OPTION.unpack_from(data, position)
        position += 4
        if position + size > end:
            raise BadQuery("an EDNS option runs over the end of OPT")
        if count < EDNS_OPTIONS_MAX:
            options.setdefault(code, data[position : position + size])
        count += 1
        position += size
    return options


def skip_name(data: bytes, position: int) -> int:
    """The offset behind the (perhaps compressed) name at ``position``; pointers are not followed."""
    size = len(data)
    while True:
        if position >= size:
            raise BadQuery("a name runs over the end")
        octet = data[position]
        if octet == 0:
            return position + 1
        if octet >= 0xC0:
            if position + 2 > size:
                raise BadQuery("a compression pointer is truncated")
            return position + 2
        if octet > 63:
            raise BadQuery("an unknown label type")
        position += octet + 1


def read_name(data: bytes, position: int) -> tuple[bytes, int]:
    """The uncompressed name at ``position`` and the offset behind it.

    Pointers must point backwards and the whole must stay below 255 octets and 256 steps, so that no loop
    and no bomb is possible.
    """
    parts: list[bytes] = []
    total = 1
    behind = -1
    size = len(data)
    limit = position
    for _ in range(POINTER_STEPS_MAX):
        if position >= size:
            raise MessageError("a name runs over the end")
        octet = data[position]
        if octet == 0:
            return b"".join(parts) + b"\x00", behind if behind >= 0 else position + 1
        if octet >= 0xC0:
            if position + 2 > size:
                raise MessageError("a compression pointer is truncated")
            if behind < 0:
                behind = position + 2
            target = ((octet & 0x3F) << 8) | data[position + 1]
            if target >= limit:
                raise MessageError("a compression pointer does not point backwards")
            position = limit = target
            continue
        if octet > 63:
            raise MessageError("an unknown label type")
        end = position + octet + 1
        total += octet + 1
        if total > 255:
            raise MessageError("a name has more than 255 octets")
        parts.append(data[position:end])
        position = end
    raise MessageError("a name has too many steps")


def layout(data: bytes, question_end: int | None = None) -> bytes:
    """Where the records of a response stand: what TTL patching and cutting at RRset boundaries need.

    Args:
        data: a whole response without OPT (it is skipped where present, but should not be there).
        question_end: the offset behind the question, if known.

    Returns:
        One ``LAYOUT`` entry (little-endian) a record: offset of its owner (u16), offset of its TTL (u16),
        section (u8: 0 answer, 1 authority, 2 additional), 1 where an RRset starts else 0 (u8).

    Raises:
        MessageError: the message is truncated, or has octets behind its last record.
    """
    if not dns.HEADER_SIZE <= len(data) <= dns.MESSAGE_SIZE_MAX:
        raise MessageError(f"{len(data)} octets; a message has 12 to 65,535")
    _, _, qdcount, *counts = _HEADER.unpack_from(data)
    position = dns.HEADER_SIZE
    if question_end is not None:
        position = question_end
    else:
        for _ in range(qdcount):
            position = skip_name(data, position) + 4
    size = len(data)
    out: list[bytes] = []
    pack = LAYOUT.pack
    for section in (0, 1, 2):
        owner, owner_at, kind = b"", 0, (-1, -1)  # of the record before
        for _ in range(counts[section]):
            start = position
            position = skip_name(data, position)
            if position + 10 > size:
                raise MessageError("a record is truncated")
            rtype, rclass, _, rdlength = _RR.unpack_from(data, position)
            written = data[start:position]
            # Owners of one RRset are mostly written alike; a first in full and a pointer to it is as legal.
            first = kind != (rtype, rclass) or (written != owner and not _same_name(data, start, owner_at))
            if rtype != dns.Type.OPT:
                out.append(pack(start, position + 4, section, first))
            owner, owner_at, kind = written, start, (rtype, rclass)
            position += 10 + rdlength
            if position > size:
                raise MessageError("a record's data runs over the end")
    if position != size:
        raise MessageError("octets behind the last record")
    return b"".join(out)


def _same_name(data: bytes, one: int, two: int) -> bool:
    return read_name(data, one)[0].lower() == read_name(data, two)[0].lower()


def min_ttl(data: bytes, message_layout: bytes) -> int:
    """The smallest TTL of the records, in seconds; 0 where there is no record. Above 2^31 counts as 0 (RFC 2181)."""
    if len(message_layout) % LAYOUT.size:
        raise MessageError("a torn layout")
    least = -1
    for _, ttl_at, _, _ in LAYOUT.iter_unpack(message_layout):
        ttl = int.from_bytes(data[ttl_at : ttl_at + 4], "big")
        if ttl >= 0x80000000:
            return 0
        if least < 0 or ttl < least:
            least = ttl
    return max(least, 0)


def opt_record(*, udp_size: int, do: bool, extended_rcode: int = 0, options: bytes = b"") -> bytes:
    """An OPT record for a response (RFC 6891 section 6.1.2).

    Args:
        udp_size: what we are ready to receive, in octets.
        do: copied from the query.
        extended_rcode: the upper eight bits of the rcode.
        options: encoded options, see ``option`` and ``ede_option``.
    """
    return (
        struct.pack("!BHHBBHH", 0, dns.Type.OPT, udp_size, extended_rcode, 0, 0x8000 if do else 0, len(options))
        + options
    )


def option(code: int, value: bytes) -> bytes:
    """One encoded EDNS option."""
    return _OPTION.pack(code, len(value)) + value


def ede_option(info_code: int, text: str = "") -> bytes:
    """An Extended DNS Error option (RFC 8914)."""
    return option(dns.EdnsOption.EDE, struct.pack("!H", info_code) + text.encode())


def error_response(
    data: bytes,
    query: Query | None,
    rcode: int,
    *,
    ra: bool = False,
    aa: bool = False,
    ede: int | None = None,
    text: str = "",
    udp_size: int = dns.UDP_SIZE_DEFAULT,
) -> bytes:
    """A response without records: header, question (if it could be read), OPT where the client sent one.

    Args:
        data: the query's octets, at least a header.
        query: the parsed query; ``None`` where it was malformed: then only the header is echoed.
        rcode: the response code; above 15 needs a query with EDNS.
        ra: whether this client may recurse here.
        aa: whether the answer is authoritative.
        ede: an Extended DNS Error code; only sent to clients that speak EDNS.
        text: EXTRA-TEXT for it.
        udp_size: the size that our OPT announces.
    """
    flags = int.from_bytes(data[2:4], "big")
    flags = dns.QR | (flags & (dns.OPCODE_MASK | dns.RD | dns.CD)) | (rcode & 0xF)
    if ra:
        flags |= dns.RA
    if aa:
        flags |= dns.AA
    if query is None:
        if rcode <= 15:
            return data[:2] + struct.pack("!HHHHH", flags, 0, 0, 0, 0)
        # BADVERS has to carry an OPT to be seen at all (RFC 6891 section 6.1.3).
        return (
            data[:2]
            + struct.pack("!HHHHH", flags, 0, 0, 0, 1)
            + opt_record(udp_size=udp_size, do=False, extended_rcode=rcode >> 4)
        )
    body = data[dns.HEADER_SIZE : query.question_end]
    if query.edns is None:
        return data[:2] + struct.pack("!HHHHH", flags, 1, 0, 0, 0) + body
    options = ede_option(ede, text) if ede is not None else b""
    opt = opt_record(udp_size=udp_size, do=query.edns.do, extended_rcode=rcode >> 4, options=options)
    return data[:2] + struct.pack("!HHHHH", flags, 1, 0, 0, 1) + body + opt
