"""From a stored answer to the reply of one query: ID, flags, question as asked, TTLs, OPT, and the client's size.

A stored answer has ID 0, its question in key form and no OPT (design: cached answer). Its question has the same
length as any spelling of it, so that compression pointers into it stay right when the client's octets replace it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from raydns.schemas import dns, wire
from raydns.schemas.config.server import ServerConfig
from raydns.schemas.errors import MessageError
from raydns.schemas.wire import LAYOUT, Query

ECHOED: Final = dns.OPCODE_MASK | dns.RD | dns.CD
_KEPT: Final = dns.AA | dns.TC | dns.RCODE_MASK  # of the stored flags; the rest belongs to the query
_COUNTS: Final = struct.Struct("!HHHH")
_FLAGS_COUNTS: Final = struct.Struct("!HHHHH")
_NOTHING: Final = _COUNTS.pack(1, 0, 0, 0)
_NOTHING_BUT_OPT: Final = _COUNTS.pack(1, 0, 0, 1)
TCP_SIZE_MAX: Final = dns.MESSAGE_SIZE_MAX


class Stored(msgspec.Struct, gc=False, eq=False):
    """An answer in the form from which replies are made; TTLs are as they were when it was made.

    Not tracked by the garbage collector: it holds no container, and L1 holds a million of them.
    """

    flags: int
    counts: bytes
    counts_opt: bytes
    tail: bytes  # the records
    layout: bytes  # one entry a record; each TTL's place has been checked
    question_end: int
    secure: bool
    ede: bytes  # encoded option, or empty
    required: int  # how many leading records a reply must hold or else say TC

    @classmethod
    def of(
        cls,
        message: bytes,
        layout: bytes,
        question_end: int,
        *,
        secure: bool = False,
        ede: bytes = b"",
        required: int = -1,
    ) -> Stored:
        """Takes a message apart.

        Args:
            message: ID 0, no OPT.
            layout: ``wire.layout`` of it; empty: it is made here.
            question_end: the offset behind the question.
            secure: whether it was validated.
            ede: an encoded Extended DNS Error option that goes with it.
            required: how many leading records a reply must hold or else say TC; -1: answer and authority, and in a
                referral the glue.

        Raises:
            MessageError: message and layout do not fit together.
        """
        size = len(message)
        if size < question_end or question_end <= dns.HEADER_SIZE:
            raise MessageError("a stored answer is shorter than its question")
        flags, qdcount, ancount, nscount, arcount = _FLAGS_COUNTS.unpack_from(message, 2)
        if qdcount != 1:
            raise MessageError("a stored answer has one question")
        if not layout and ancount + nscount + arcount:
            layout = wire.layout(message, question_end)
        if len(layout) != LAYOUT.size * (ancount + nscount + arcount):
            raise MessageError("a layout that does not fit its message")
        behind = question_end
        for owner_at, ttl_at, _, _ in LAYOUT.iter_unpack(layout):
            if owner_at != behind or not owner_at < ttl_at <= size - 6:
                raise MessageError("a layout that does not follow its message")
            behind = ttl_at + 6 + (message[ttl_at + 4] << 8 | message[ttl_at + 5])
        if behind != size:
            raise MessageError("a stored answer ends elsewhere than its last record")
        if required < 0:
            # RFC 9471: a referral whose glue does not fit has to say so.
            referral = not ancount and nscount > 0 and not flags & (dns.AA | dns.RCODE_MASK)
            required = ancount + nscount + (arcount if referral else 0)
        return cls(
            flags & _KEPT,
            _COUNTS.pack(1, ancount, nscount, arcount),
            _COUNTS.pack(1, ancount, nscount, arcount + 1),
            message[question_end:],
            layout,
            question_end,
            secure,
            ede,
            required,
        )

    @property
    def rcode(self) -> int:
        """The response code."""
        return self.flags & dns.RCODE_MASK

    def aged(self, age: int) -> bytes:
        """The records with every TTL lowered by ``age`` seconds, never below zero."""
        tail = bytearray(self.tail)
        for at, ttl in self.ttls():
            tail[at : at + 4] = (ttl - age if ttl > age else 0).to_bytes(4, "big")
        return bytes(tail)

    def capped(self, ttl_max: int) -> bytes:
        """The records with no TTL above ``ttl_max``: what a stale answer says (RFC 8767 section 5)."""
        tail = bytearray(self.tail)
        for at, ttl in self.ttls():
            tail[at : at + 4] = min(ttl, ttl_max).to_bytes(4, "big")
        return bytes(tail)

    def ttls(self) -> Iterator[tuple[int, int]]:
        """Each TTL's offset in ``tail``, and its seconds."""
        tail, end = self.tail, self.question_end
        for _, ttl_at, _, _ in LAYOUT.iter_unpack(self.layout):
            at = ttl_at - end
            ttl = int.from_bytes(tail[at : at + 4], "big")
            yield at, 0 if ttl > 0x7FFFFFFF else ttl  # RFC 2181 section 8


class Renderer:
    """Makes replies; one a state, since size, NSID and OPT come from the configuration."""

    def __init__(self, server: ServerConfig) -> None:
        self.udp_size = server.udp_size
        self._nsid = wire.option(dns.EdnsOption.NSID, server.nsid.encode()) if server.nsid else b""
        self._opt = wire.opt_record(udp_size=self.udp_size, do=False)
        self._opt_do = wire.opt_record(udp_size=self.udp_size, do=True)

    def limit(self, query: Query) -> int:
        """How large a UDP reply to this query may be (RFC 6891 section 6.2.5)."""
        edns = query.edns
        if edns is None:
            return dns.UDP_SIZE_MIN
        size = edns.udp_size
        if size >= self.udp_size:
            return self.udp_size
        return size if size > dns.UDP_SIZE_MIN else dns.UDP_SIZE_MIN

    def opt(self, query: Query, options: bytes = b"", extended_rcode: int = 0) -> bytes:
        """Our OPT for a query that has one; NSID where it was asked for (RFC 5001)."""
        edns = query.edns
        assert edns is not None
        if edns.options and self._nsid and dns.EdnsOption.NSID in edns.options:
            options += self._nsid
        if options or extended_rcode:
            return wire.opt_record(udp_size=self.udp_size, do=edns.do, extended_rcode=extended_rcode, options=options)
        return self._opt_do if edns.do else self._opt

    def reply(  # noqa: PLR0917 - keywords cost a twentieth of a hit
        self, data: bytes, query: Query, stored: Stored, tail: bytes, limit: int, ra: int, options: bytes = b""
    ) -> bytes:
        """The reply to a query from a stored answer.

        Args:
            data: the query's octets, at least up to the end of its question.
            query: the same, parsed.
            stored: the answer.
            tail: its records with the TTLs that this client shall see.
            limit: octets that may be sent.
            ra: ``dns.RA`` where the client may recurse here, else 0.
            options: encoded EDNS options for this query, beside the answer's own.
        """
        edns = query.edns
        asked = query.flags
        flags = dns.QR | (asked & ECHOED) | stored.flags | ra
        if stored.secure and (asked & dns.AD or (edns is not None and edns.do)):
            flags |= dns.AD  # RFC 6840 section 5.7: only to those who asked for it
        if edns is None:
            opt, counts = b"", stored.counts
        else:
            opt, counts = self.opt(query, options + stored.ede), stored.counts_opt
        end = stored.question_end
        size = end + len(tail) + len(opt)
        if size > limit:
            return _cut(data, flags, stored, tail, opt, limit)
        return b"%b%b%b%b%b%b" % (data[:2], flags.to_bytes(2, "big"), counts, data[12:end], tail, opt)

    def error(
        self,
        data: bytes,
        query: Query,
        rcode: int,
        *,
        ra: int = 0,
        aa: int = 0,
        ede: int = -1,
        text: str = "",
        options: bytes = b"",
    ) -> bytes:
        """A reply without records."""
        flags = dns.QR | (query.flags & ECHOED) | ra | aa | (rcode & dns.RCODE_MASK)
        opt, counts = b"", _NOTHING
        if query.edns is not None:
            if ede >= 0:
                options += wire.ede_option(ede, text)
            opt, counts = self.opt(query, options, rcode >> 4), _NOTHING_BUT_OPT
        return data[:2] + flags.to_bytes(2, "big") + counts + data[12 : query.question_end] + opt

    def malformed(self, data: bytes, rcode: int) -> bytes:
        """The reply to what could not be parsed: for BADVERS with question and OPT (RFC 6891 6.1.3)."""
        if rcode <= 15:
            return wire.error_response(data, None, rcode, udp_size=self.udp_size)
        end = wire.skip_name(data, dns.HEADER_SIZE) + 4
        flags = dns.QR | (int.from_bytes(data[2:4], "big") & ECHOED) | (rcode & dns.RCODE_MASK)
        opt = wire.opt_record(udp_size=self.udp_size, do=False, extended_rcode=rcode >> 4)
        return data[:2] + flags.to_bytes(2, "big") + _NOTHING_BUT_OPT + data[12:end] + opt


def _cut(  # noqa: PLR0917
    data: bytes, flags: int, stored: Stored, tail: bytes, opt: bytes, limit: int
) -> bytes:
    """As many whole RRsets as fit, in order; TC where a required record had to go (RFC 2181 section 9)."""
    end = stored.question_end
    room = limit - end - len(opt)
    counts = [0, 0, 0]
    kept = [0, 0, 0]
    used = 0
    entries = list(LAYOUT.iter_unpack(stored.layout))
    size = len(tail)
    for index, (_, _, section, _) in enumerate(entries):
        counts[section] += 1
        behind = entries[index + 1][0] - end if index + 1 < len(entries) else size
        last_of_set = index + 1 == len(entries) or entries[index + 1][3] or entries[index + 1][2] != section
        if not last_of_set:
            continue
        if behind > room:
            break
        used = behind
        kept = counts.copy()
    if sum(kept) < stored.required:
        flags |= dns.TC
    packed = _COUNTS.pack(1, kept[0], kept[1], kept[2] + (1 if opt else 0))
    return b"%b%b%b%b%b%b" % (data[:2], flags.to_bytes(2, "big"), packed, data[12:end], tail[:used], opt)


def question_end_of(key: bytes) -> int:
    """Where the question of a message about this name ends."""
    return dns.HEADER_SIZE + len(key) + 4
