"""Chains that go on at somebody else's: where an answer ends, what is asked next, and one answer out of two."""

from __future__ import annotations

import struct

from raydns.schemas import dns, facts, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem
from raydns.schemas.errors import MessageError

from .forward.chain import follow_chain
from .forward.message import Question, dns_opt
from .forward.records import read_section, render
from .forward.scan import scan

_HEADER = struct.Struct("!HHHHHH")
_TYPE_CLASS = struct.Struct("!HH")
_CNAMES = frozenset({int(dns.Type.CNAME), int(dns.Type.DNAME), int(dns.Type.RRSIG)})


def open_end(message: bytes, query: wire.Query) -> bytes | None:
    """The name at which the answer's chain of CNAMEs stops without an answer and without a denial; key form.

    Raises:
        MessageError: the answer is malformed.
    """
    _, flags, qdcount, ancount, nscount, arcount = _HEADER.unpack_from(message)
    if not ancount or flags & (dns.RCODE_MASK | dns.TC) or qdcount != 1:
        return None
    end = dns.HEADER_SIZE + len(query.key) + 4
    found = scan(message, end, query.key, (ancount, nscount, arcount))
    kept = follow_chain(found, Question(query.key, query.qtype, query.qclass, True), None)
    if kept.done or not kept.chain or kept.overflow or found.authority:
        return None
    return kept.name


def query_for(name: bytes, query: wire.Query) -> tuple[wire.Query, bytes]:
    """The same question for another name in key form: parsed, and as octets."""
    flags = query.flags & (dns.RD | dns.CD)
    message = _HEADER.pack(0, flags, 1, 0, 0, 0) + name + _TYPE_CLASS.pack(query.qtype, query.qclass)
    edns = query.edns
    if edns is not None:
        message = message[:10] + b"\x00\x01" + message[12:] + dns_opt(edns.udp_size, edns.do)
        edns = wire.Edns(edns.udp_size, 0, edns.do, {})
    end = dns.HEADER_SIZE + len(name) + 4
    return wire.Query(0, flags, name, name, query.qtype, query.qclass, end, edns), message


def join(first: AnswerItem, second: AnswerItem, query: wire.Query) -> AnswerItem:
    """One answer: the chain of ``first``, then what ``second`` says of the chain's end.

    The response code and the authority section are those of the end (RFC 2308 section 2.1, RFC 6604 section 3),
    AA is that of the name that was asked (RFC 1035 section 4.1.1). What either forbids, the whole forbids.

    Raises:
        MessageError: an answer is malformed, or both together are too large.
    """
    question_end = dns.HEADER_SIZE + len(query.key) + 4
    _, first_flags, _, ancount, _, _ = _HEADER.unpack_from(first.message)
    chain, _ = read_section(first.message, question_end, ancount)
    _, second_flags, qdcount, ancount, nscount, _ = _HEADER.unpack_from(second.message)
    if qdcount != 1:
        raise MessageError("an answer without its question")
    position = wire.skip_name(second.message, dns.HEADER_SIZE) + 4
    answer, position = read_section(second.message, position, ancount)
    authority, _ = read_section(second.message, position, nscount)
    flags = (first_flags & ~dns.RCODE_MASK) | (second_flags & dns.RCODE_MASK)
    question = query.key + _TYPE_CLASS.pack(query.qtype, query.qclass)
    message = render(flags, question, [r for r in chain if r.rtype in _CNAMES] + answer, authority)
    a, b = facts.decode(first.facts), facts.decode(second.facts)
    both = facts.Facts(a.chain + b.chain, a.addresses + b.addresses, a.name_servers + b.name_servers)
    restricting = AnswerFlag.AUTHORITATIVE | AnswerFlag.LOCAL_FAILURE | AnswerFlag.STALE | AnswerFlag.RETRY
    granting = AnswerFlag.SHAREABLE | AnswerFlag.SECURE
    return AnswerItem(
        first.slot,
        message,
        ((first.flags | second.flags) & restricting) | (first.flags & second.flags & granting),
        max(first.scope, second.scope),
        min(first.fresh_s, second.fresh_s),
        min(first.stale_s, second.stale_s),
        layout=wire.layout(message, question_end),
        facts=facts.encode(both),
        rooms=first.rooms + second.rooms,
        ede=second.ede if second.ede >= 0 else first.ede,
        ede_text=second.ede_text if second.ede >= 0 else first.ede_text,
    )
