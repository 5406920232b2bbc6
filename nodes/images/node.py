"""A node of an image, decoded: its RRsets with every RR ready in wire form, and where names stand in RDATA.

Rules of this file: a node's octets are checked here once, completely, when it is decoded; whoever holds a ``Node``
may believe it. What is wrong is an ``ImageError`` with the node's place.
"""

from __future__ import annotations

from typing import Final

from raydns.schemas import dns, images, names
from raydns.schemas.errors import ImageError, NameError_

_RR_HEAD: Final = 10  # type, class, TTL, RDLENGTH
_NS: Final = int(dns.Type.NS)

Part = tuple[bytes, bytes, bytes]
"""Octets that go out as they are, then a name that may be compressed: as written, and its key."""


class RRset:
    """All records of one type at a node."""

    __slots__ = ("parts", "records", "rtype", "size", "targets", "ttl")

    def __init__(self, rtype: int, ttl: int, records: tuple[bytes, ...]) -> None:
        self.rtype = rtype
        self.ttl = ttl
        self.records = records
        """Each RR behind its owner: type, class, TTL, RDLENGTH, RDATA."""
        self.size = sum(map(len, records))
        self.parts: tuple[tuple[tuple[Part, ...], bytes], ...] = ()
        """An entry an RR where names may be compressed: parts, and the octets behind the last name."""
        self.targets: tuple[tuple[bytes, bytes], ...] = ()
        """Names whose addresses are wanted in the additional section: as written, and key."""

    def rdatas(self) -> list[bytes]:
        """The RDATA of each record, uncompressed."""
        return [record[_RR_HEAD:] for record in self.records]

    def with_ttl(self, ttl: int) -> RRset:
        """The same records with another TTL (RFC 2308 section 3: the SOA of a negative answer)."""
        if ttl == self.ttl:
            return self
        octets = ttl.to_bytes(4, "big")
        copy = RRset(self.rtype, ttl, tuple(r[:4] + octets + r[8:] for r in self.records))
        copy.parts, copy.targets = self.parts, self.targets
        return copy


class Node:
    """A name that exists in a zone."""

    __slots__ = ("flags", "hook", "is_cut", "key", "owner", "rrsets", "size")

    def __init__(  # noqa: PLR0917 - as the format has them
        self, key: bytes, owner: bytes, flags: int, hook: int, rrsets: dict[int, RRset], size: int
    ) -> None:
        self.size = size
        """Octets in the image."""
        self.key = key
        self.owner = owner
        """As written in the zone."""
        self.flags = flags
        self.hook = hook
        self.rrsets = rrsets
        """By type, in ascending order."""
        self.is_cut = _NS in rrsets
        """It owns NS records: a zone cut everywhere but at the apex."""


def decode(data: bytes, where: str) -> Node:
    """Decodes a node from its octets (``data`` has exactly its size)."""
    try:
        return _decode(data)
    except (IndexError, ValueError, NameError_, _Malformed) as error:
        raise ImageError(f"a malformed node: {error}", where=where, hint="fetch it again") from error


class _Malformed(Exception):
    """Why a node cannot be believed."""


def _decode(data: bytes) -> Node:
    size = len(data)
    _, flags, count, hook, key_size, _, _ = images.NODE.unpack_from(data)
    position = images.NODE.size
    key = _name(data, position, key_size)
    if key != key.lower():
        raise _Malformed("its key is not in lower case")
    position += key_size
    owner = key
    if flags & images.NodeFlag.OWNER:
        owner = _name(data, position, key_size)
        if owner.lower() != key:
            raise _Malformed("owner and key are different names")
        position += key_size
    position = images.aligned(position, images.NODE_ALIGNMENT)
    if position + count * images.RRSET.size > size:
        raise _Malformed("its RRsets run over its end")
    rrsets: dict[int, RRset] = {}
    last = -1
    for index in range(count):
        rrset = _rrset(data, position + index * images.RRSET.size)
        if rrset.rtype <= last:
            raise _Malformed("its RRsets are not in ascending order of type")
        last = rrset.rtype
        rrsets[last] = rrset
    return Node(key, owner, flags, hook, rrsets, size)


def _name(data: bytes, at: int, size: int) -> bytes:
    name = data[at : at + size]
    if len(name) != size:
        raise _Malformed("its name runs over its end")
    return names.check(name)


def _rrset(data: bytes, at: int) -> RRset:
    rtype, count, ttl, data_at, data_size, refs_at, refs_count, _, _, _ = images.RRSET.unpack_from(data, at)
    end = data_at + data_size
    if end > len(data) or refs_at + refs_count * images.NAME_REF.size > len(data):
        raise _Malformed(f"type {rtype} points outside the node")
    records: list[bytes] = []
    position = data_at
    head = rtype.to_bytes(2, "big") + b"\x00\x01" + ttl.to_bytes(4, "big")
    for _ in range(count):
        rdata_at = position + _RR_HEAD
        if rdata_at > end or data[position : position + 8] != head:
            raise _Malformed(f"type {rtype} has records of another type, class or TTL, or too few")
        position = rdata_at + int.from_bytes(data[rdata_at - 2 : rdata_at], "big")
        if position > end:
            raise _Malformed(f"type {rtype} runs over its end")
        records.append(data[rdata_at - _RR_HEAD : position])
    if position != end or not records:
        raise _Malformed(f"type {rtype} has octets behind its last record, or no record")
    rrset = RRset(rtype, ttl, tuple(records))
    if refs_count:
        refs = data[refs_at : refs_at + refs_count * images.NAME_REF.size]
        _attach_names(rrset, list(images.NAME_REF.iter_unpack(refs)))
    return rrset


def _attach_names(rrset: RRset, refs: list[tuple[int, int, int, int]]) -> None:
    by_record: list[list[tuple[int, int]]] = [[] for _ in rrset.records]
    for number, offset, flags, _ in refs:
        chosen = by_record if number == images.EVERY_RR else [by_record[number]]
        for found in chosen:
            found.append((offset, flags))
    compress = any(flags & images.NameFlag.COMPRESS for _, _, flags, _ in refs)
    parts: list[tuple[tuple[Part, ...], bytes]] = []
    targets: dict[bytes, bytes] = {}
    for record, places in zip(rrset.records, by_record, strict=True):
        pieces: list[Part] = []
        position = _RR_HEAD
        for offset, flags in sorted(places):
            start = _RR_HEAD + offset
            if start < position:
                raise _Malformed(f"type {rrset.rtype} has overlapping names")
            name = _rdata_name(record, start)
            if flags & images.NameFlag.ADDITIONAL:
                targets.setdefault(name.lower(), name)
            if flags & images.NameFlag.COMPRESS:
                pieces.append((record[position:start], name, name.lower()))
                position = start + len(name)
        parts.append((tuple(pieces), record[position:]))
    if compress:
        rrset.parts = tuple(parts)
    rrset.targets = tuple((name, key) for key, name in targets.items())


def _rdata_name(record: bytes, start: int) -> bytes:
    position = start
    while size := record[position]:
        position += size + 1
    return names.check(record[start : position + 1])
