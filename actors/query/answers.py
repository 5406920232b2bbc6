"""Answers that the query actor makes itself: refusals and failures, and what each allows the tiers below."""

from __future__ import annotations

import struct

from raydns.schemas import dns, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem

from .forward.reply import Reply
from .forward.ttl import Lifetimes

_HEADER = struct.Struct("!HHHHHH")
_TYPE_CLASS = struct.Struct("!HH")

REFUSAL_S = 5
"""How long a refusal that is the same for everybody may be kept: a new rule or zone flushes it earlier."""


def question_of(query: wire.Query) -> bytes:
    """The question section in key form."""
    return query.key + _TYPE_CLASS.pack(query.qtype, query.qclass)


def bare(query: wire.Query, rcode: int) -> bytes:
    """A response without records."""
    return _HEADER.pack(0, dns.QR | (query.flags & dns.OPCODE_MASK) | rcode, 1, 0, 0, 0) + question_of(query)


def refused(
    slot: int, query: wire.Query, ede: int, text: str, *, shareable: bool = False, rcode: int = dns.Rcode.REFUSED
) -> AnswerItem:
    """A refusal; *this slot only* unless it would be the same for whoever asks."""
    if not shareable:
        return AnswerItem(slot, bare(query, rcode), 0, ede=int(ede), ede_text=text)
    return AnswerItem(slot, bare(query, rcode), AnswerFlag.SHAREABLE, fresh_s=REFUSAL_S, ede=int(ede), ede_text=text)


def failed(slot: int, query: wire.Query, ede: int, text: str, *, ours: bool, fresh_s: int = 0) -> AnswerItem:
    """SERVFAIL.

    Args:
        slot: of the query.
        query: the query.
        ede: an Extended DNS Error code.
        text: says what failed.
        ours: of our own making (budget, shedding, deadline): told to those who wait, and cached in no tier.
        fresh_s: how long a failure that is not ours may be remembered (RFC 9520).
    """
    flags = AnswerFlag.SHAREABLE | (AnswerFlag.LOCAL_FAILURE if ours else 0)
    return AnswerItem(
        slot,
        bare(query, dns.Rcode.SERVFAIL),
        int(flags),
        fresh_s=0 if ours else fresh_s,
        ede=int(ede),
        ede_text=text,
    )


def malformed(slot: int, message: bytes) -> AnswerItem:
    """FORMERR to what no ingress lets through; only the header can be echoed."""
    header = message[: dns.HEADER_SIZE].ljust(dns.HEADER_SIZE, b"\x00")
    data = b"\x00\x00" + wire.error_response(header, None, dns.Rcode.FORMERR)[2:]
    return AnswerItem(slot, data, AnswerFlag.LOCAL_FAILURE)


def forwarded(slot: int, reply: Reply, lifetimes: Lifetimes) -> AnswerItem:
    """A believed answer of an upstream."""
    return AnswerItem(
        slot,
        reply.message,
        AnswerFlag.SHAREABLE,
        fresh_s=reply.fresh_s,
        stale_s=lifetimes.stale_max_s if reply.fresh_s else 0,
        layout=reply.layout,
        facts=reply.facts,
        ede=reply.ede,
        ede_text=reply.ede_text,
    )
