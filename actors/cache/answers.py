"""What an answer from above is worth: checked, judged, and its TTLs brought into bounds. No state, no clock.

Rules of this file: whatever a query actor sends, ``judge`` either returns a message that is well-formed, asks what
was asked, and has TTLs that may be counted down, or raises ``MessageError``.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final, NamedTuple

from raydns.schemas import dns, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem
from raydns.schemas.errors import MessageError

from .settings import Settings

_HEADER: Final = struct.Struct("!HHHHHH")
_TTL: Final = struct.Struct("!I")
_TTL_LIMIT: Final = 0x80000000  # RFC 2181 section 8: what has the top bit set counts as 0
_ANSWERS: Final = frozenset({dns.Rcode.NOERROR, dns.Rcode.NXDOMAIN})


class Kind(IntEnum):
    """What is done with an answer."""

    PASSED = 0  # goes to those who wait, and is not kept
    POSITIVE = 1
    NEGATIVE = 2  # NXDOMAIN or NODATA (RFC 2308)
    FAILURE = 3  # any other response code (RFC 9520)


class Verdict(NamedTuple):
    """A checked answer."""

    kind: int  # Kind
    ttl: int  # seconds; 0: only to those who wait
    message: bytes
    layout: bytes


class _Scan(NamedTuple):
    least: int  # smallest TTL, the SOA's by RFC 2308
    most: int
    matched: bool  # a record of the type that was asked for
    soa_at: int  # offset of the authority section's SOA TTL, 0: there is none
    soa_ttl: int  # min(its TTL, MINIMUM)


def judge(answer: AnswerItem, question: bytes, settings: Settings) -> Verdict:
    """Checks an answer against the question in key form and decides how long it is kept.

    Raises:
        MessageError: malformed, with an OPT, or for another question.
    """
    message = _checked(answer.message, question)
    layout = wire.layout(message, dns.HEADER_SIZE + len(question))
    if len(layout) != wire.LAYOUT.size * sum(_HEADER.unpack_from(message)[3:]):
        raise MessageError("an answer between rooms must not hold an OPT")
    rcode = message[3] & dns.RCODE_MASK
    if answer.flags & AnswerFlag.NEVER_KEPT or message[2] & 0x02 or not answer.flags & AnswerFlag.SHAREABLE:
        return Verdict(Kind.PASSED, 0, message, layout)
    if rcode not in _ANSWERS:
        return Verdict(Kind.FAILURE, 0, message, layout)
    scan = _scan(message, layout, int.from_bytes(question[-4:-2], "big"))
    if scan.matched and rcode == dns.Rcode.NOERROR:
        return _positive(answer, message, layout, scan, settings)
    return _negative(answer, message, layout, scan, settings)


def _checked(message: bytes, question: bytes) -> bytes:
    end = dns.HEADER_SIZE + len(question)
    if len(message) < end or not message[2] & 0x80 or message[4:6] != b"\x00\x01":
        raise MessageError("not a response with one question")
    asked = message[dns.HEADER_SIZE : end]
    if asked != question:
        if asked[-4:] != question[-4:] or asked[:-4].lower() != question[:-4]:
            raise MessageError("an answer to another question")
        message = message[: dns.HEADER_SIZE] + question + message[end:]
    return message if message[:2] == b"\x00\x00" else b"\x00\x00" + message[2:]


def _scan(message: bytes, layout: bytes, qtype: int) -> _Scan:
    least, most, matched, soa_at, soa_ttl = _TTL_LIMIT, 0, False, 0, 0
    for _, at, section, _ in wire.LAYOUT.iter_unpack(layout):
        ttl = int.from_bytes(message[at : at + 4], "big")
        most = max(most, ttl)
        if ttl >= _TTL_LIMIT:
            ttl = 0
        rtype = message[at - 4] << 8 | message[at - 3]
        if section == 0:
            if qtype in {rtype, dns.Type.ANY}:
                matched = True
        elif section == 1 and rtype == dns.Type.SOA and not soa_at:
            soa_at, soa_ttl = at, min(ttl, _soa_minimum(message, at))
            ttl = soa_ttl
        least = min(least, ttl)
    return _Scan(least, most, matched, soa_at, soa_ttl)


def _soa_minimum(message: bytes, ttl_at: int) -> int:
    length = message[ttl_at + 4] << 8 | message[ttl_at + 5]
    if length < 22:  # two names of at least one octet, five numbers
        raise MessageError("an SOA record is too short")
    end = ttl_at + 6 + length
    minimum = int.from_bytes(message[end - 4 : end], "big")
    return 0 if minimum >= _TTL_LIMIT else minimum


def _positive(answer: AnswerItem, message: bytes, layout: bytes, scan: _Scan, settings: Settings) -> Verdict:
    ttl = _ttl(answer, scan.least, settings)
    if scan.most > settings.ttl_max or scan.least < settings.ttl_min:
        message = clamped(message, layout, settings.ttl_min, settings.ttl_max)
    return Verdict(Kind.POSITIVE, ttl, message, layout)


def _negative(answer: AnswerItem, message: bytes, layout: bytes, scan: _Scan, settings: Settings) -> Verdict:
    """RFC 2308 section 5: for min(SOA TTL, MINIMUM), bounded; without an SOA it is not kept at all."""
    if not scan.soa_at:
        if scan.most > settings.ttl_max:
            message = clamped(message, layout, 0, settings.ttl_max)
        return Verdict(Kind.PASSED, 0, message, layout)
    cap = min(settings.negative_ttl_max, settings.ttl_max)
    ttl = min(_ttl(answer, scan.least, settings), cap)
    message = clamped(message, layout, settings.ttl_min, settings.ttl_max)
    soa_ttl = max(min(scan.soa_ttl, cap), ttl)
    at = scan.soa_at
    return Verdict(Kind.NEGATIVE, ttl, message[:at] + _TTL.pack(soa_ttl) + message[at + 4 :], layout)


def _ttl(answer: AnswerItem, natural: int, settings: Settings) -> int:
    bounded = min(max(natural, settings.ttl_min), settings.ttl_max)
    # Who answered wants it kept for less than its records say: a signature runs out, an answer is provisional.
    return min(bounded, answer.fresh_s) if answer.fresh_s < natural else bounded


def clamped(message: bytes, layout: bytes, low: int, high: int) -> bytes:
    """The message with every TTL between ``low`` and ``high``."""
    out = bytearray(message)
    for _, at, _, _ in wire.LAYOUT.iter_unpack(layout):
        ttl = int.from_bytes(out[at : at + 4], "big")
        ttl = 0 if ttl >= _TTL_LIMIT else ttl
        out[at : at + 4] = _TTL.pack(min(max(ttl, low), high))
    return bytes(out)


def aged(message: bytes, layout: bytes, age: int) -> bytes:
    """The message with every TTL lowered by ``age`` seconds, so that whoever gets it counts from now."""
    out = bytearray(message)
    for _, at, _, _ in wire.LAYOUT.iter_unpack(layout):
        ttl = int.from_bytes(out[at : at + 4], "big") - age
        out[at : at + 4] = _TTL.pack(max(ttl, 0))
    return bytes(out)


def with_ttl(message: bytes, layout: bytes, ttl: int) -> bytes:
    """The message with this TTL on every record (RFC 8767 section 4: 30 seconds where it is stale)."""
    return clamped(message, layout, ttl, ttl)


def bare(question: bytes, rcode: int, flags: int = 0) -> bytes:
    """A response without records, as it travels between rooms: ID 0, question in key form, no OPT."""
    return _HEADER.pack(0, dns.QR | flags | (rcode & dns.RCODE_MASK), 1, 0, 0, 0) + question


def failed(slot: int, question: bytes, rcode: int, ede: int, text: str, *, shareable: bool) -> AnswerItem:
    """A failure of our own making: it is cached in no tier.

    Args:
        slot: of the query.
        question: in key form; empty where it could not be read.
        rcode: SERVFAIL or REFUSED mostly.
        ede: an Extended DNS Error code (RFC 8914).
        text: for people, in the answer's EXTRA-TEXT.
        shareable: whether it is also the answer of those who wait below for the same.
    """
    flags = AnswerFlag.LOCAL_FAILURE | (AnswerFlag.SHAREABLE if shareable else 0)
    message = bare(question, rcode) if question else _HEADER.pack(0, dns.QR | rcode, 0, 0, 0, 0)
    return AnswerItem(slot, message, flags, ede=int(ede), ede_text=text)
