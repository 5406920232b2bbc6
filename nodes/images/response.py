"""A response under construction: RRsets put into sections with compressed names, and where each record stands.

Rules of this file: names are compressed by suffix against everything that was written before (RFC 1035 section
4.1.4), only where RFC 3597 section 4 allows it; an owner that equals the question's name becomes a pointer to it,
so that the question's case answers for it. Whole RRsets go in or stay out (RFC 2181 section 5).
"""

from __future__ import annotations

from typing import Final

from raydns.schemas import dns
from raydns.schemas.wire import LAYOUT

from .node import RRset

SUFFIXES_MAX: Final = 512  # 120 names a message (design: limits), each with four or so new suffixes
_POINTER_MAX: Final = 0x3FFF  # RFC 1035 section 4.1.4: 14 bits of offset

ANSWER: Final = 0
AUTHORITY: Final = 1
ADDITIONAL: Final = 2

_pack_layout = LAYOUT.pack


class Response:
    """Sections in the order in which they are filled: answer, authority, additional."""

    __slots__ = ("_names", "_present", "aa", "buffer", "counts", "layout", "limit", "rcode", "required", "tc")

    def __init__(self, key: bytes, qtype: int, qclass: int, limit: int) -> None:
        self.buffer = bytearray(dns.HEADER_SIZE)
        self.buffer += key
        self.buffer += qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big")
        self.limit = limit
        """The message never grows beyond it."""
        self.layout = bytearray()
        self.counts = [0, 0, 0]
        self.rcode = 0
        self.aa = False
        self.tc = False
        """Something that belongs into the response did not fit."""
        self.required = 0
        """Records of ``layout`` without which a shorter copy must say TC."""
        self._names: dict[bytes, int] = {}
        self._present: set[tuple[bytes, int]] = set()
        position = 0
        while size := key[position]:
            self._names[key[position:]] = dns.HEADER_SIZE + position
            position += size + 1

    def add(self, section: int, owner: bytes, key: bytes, rrset: RRset, *, required: bool = True) -> bool:
        """Puts in an RRset under an owner, once; ``False`` if it is there already or does not fit."""
        identity = (key, rrset.rtype)
        if identity in self._present or self.tc:
            return False
        buffer = self.buffer
        mark = len(buffer)
        layout_mark = len(self.layout)
        if rrset.size > self.limit and not rrset.parts:
            self.tc = required
            return False
        if rrset.parts:
            self._add_with_names(section, owner, key, rrset)
        else:
            self._add_plain(section, owner, key, rrset)
        if len(buffer) > self.limit:
            self._roll_back(mark, layout_mark)
            self.tc = self.tc or required
            return False
        self._present.add(identity)
        self.counts[section] += len(rrset.records)
        if required:
            self.required += len(rrset.records)
        return True

    def holds(self, key: bytes, rtype: int) -> bool:
        """Whether the RRset is in the response already."""
        return (key, rtype) in self._present

    def message(self) -> bytes:
        """The whole message, with ID 0."""
        flags = dns.QR | (dns.AA if self.aa else 0) | (dns.TC if self.tc else 0) | self.rcode
        answer, authority, additional = self.counts
        self.buffer[: dns.HEADER_SIZE] = (
            (flags << 64) | (1 << 48) | (answer << 32) | (authority << 16) | additional
        ).to_bytes(dns.HEADER_SIZE, "big")
        return bytes(self.buffer)

    def _add_plain(self, section: int, owner: bytes, key: bytes, rrset: RRset) -> None:
        buffer = self.buffer
        start = 1
        for record in rrset.records:
            at = len(buffer)
            self._write_name(owner, key)
            self.layout += _pack_layout(at & 0xFFFF, (len(buffer) + 4) & 0xFFFF, section, start)
            buffer += record
            start = 0

    def _add_with_names(self, section: int, owner: bytes, key: bytes, rrset: RRset) -> None:
        buffer = self.buffer
        start = 1
        for record, (parts, tail) in zip(rrset.records, rrset.parts, strict=True):
            at = len(buffer)
            self._write_name(owner, key)
            head_at = len(buffer)
            self.layout += _pack_layout(at & 0xFFFF, (head_at + 4) & 0xFFFF, section, start)
            buffer += record[:10]
            for literal, name, name_key in parts:
                buffer += literal
                self._write_name(name, name_key)
            buffer += tail
            buffer[head_at + 8 : head_at + 10] = (len(buffer) - head_at - 10).to_bytes(2, "big")
            start = 0

    def _write_name(self, name: bytes, key: bytes) -> None:
        known = self._names
        buffer = self.buffer
        at = known.get(key)
        if at is not None:
            buffer += (0xC000 | at).to_bytes(2, "big")
            return
        base = len(buffer)
        position = 0
        while size := key[position]:
            suffix = key[position:]
            at = known.get(suffix)
            if at is not None:
                buffer += name[:position]
                buffer += (0xC000 | at).to_bytes(2, "big")
                return
            if base + position <= _POINTER_MAX and len(known) < SUFFIXES_MAX:
                known[suffix] = base + position
            position += size + 1
        buffer += name

    def _roll_back(self, mark: int, layout_mark: int) -> None:
        del self.buffer[mark:]
        del self.layout[layout_mark:]
        self._names = {suffix: at for suffix, at in self._names.items() if at < mark}
