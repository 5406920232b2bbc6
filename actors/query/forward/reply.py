"""A reply from an upstream: whether it is believed, and what of it goes down to the cache.

What is kept follows from the question alone: the chain of CNAMEs and DNAMEs that starts at it, the records at
the chain's end, and for negative answers the SOA and the denial of the zone they belong to. Whatever else the
reply holds is dropped; a reply of which nothing is left was a lie.

Two ways lead to the same message: octets are copied where everything kept stands at the front and in order (the
usual case), and records are rendered anew otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from raydns.schemas import dns, facts, wire
from raydns.schemas.errors import MessageError

from .chain import Kept, follow_chain
from .faults import BY_RCODE, BadReply, Fault
from .message import Sent
from .records import Record, expand_rdata, follow, render
from .scan import Entry, scan
from .ttl import Lifetimes, capped_ttls, negative_ttl

_COUNTS: Final = struct.Struct("!HHHHH")
_HEADER: Final = struct.Struct("!HHHHHH")
_LAYOUT_PACK: Final = wire.LAYOUT.pack
_NOT_QUERY: Final = dns.OPCODE_MASK
_NXDOMAIN: Final = int(dns.Rcode.NXDOMAIN)
_YXDOMAIN: Final = 6  # RFC 6672 section 2.2: the name that a DNAME leads to is too long
_ADDRESSES: Final = frozenset({1, 28})


class Reply(msgspec.Struct, gc=False):
    """A believed answer in the form in which it travels down: ID 0, question in key form, no OPT."""

    message: bytes
    layout: bytes
    rcode: int
    fresh_s: int
    facts: bytes
    chain: tuple[bytes, ...] = ()  # owners of CNAMEs followed, key form
    target: bytes | None = None  # where the chain goes on, if somebody else is to be asked; key form
    ede: int = -1
    ede_text: str = ""


def read(
    data: bytes,
    sent: Sent,
    lifetimes: Lifetimes,
    now_s: int,
    owns: Callable[[bytes], bool] | None = None,
    *,
    exact_case: bool = True,
) -> Reply:
    """Checks a reply whose ID was right, and makes the answer out of it.

    Args:
        data: the reply.
        sent: the query as it left.
        lifetimes: bounds of TTLs.
        now_s: Unix time, for the validity of signatures.
        owns: whether a name in key form is this upstream's to answer; ``None``: every name is.
        exact_case: whether the question must come back in the case that was sent.

    Raises:
        BadReply: with the fault; ``TRUNCATED`` for TC, the rcode's fault for anything but an answer.
    """
    flags = _check_question(data, sent, exact_case=exact_case)
    _, _, ancount, nscount, arcount = _COUNTS.unpack_from(data, 2)
    if flags & dns.TC:
        raise BadReply(Fault.TRUNCATED)
    question = sent.question
    found = scan(data, dns.HEADER_SIZE + len(sent.asked), question.key, (ancount, nscount, arcount))
    rcode = (flags & dns.RCODE_MASK) | (found.rcode_high << 4)
    if rcode not in (0, _NXDOMAIN, _YXDOMAIN):
        fault = BY_RCODE.get(rcode, Fault.OTHER_RCODE)
        raise BadReply(fault, f"the upstream answered {fault.value}", ede=found.ede, ede_text=found.ede_text)
    kept = follow_chain(found, question, owns)
    rcode = _judge(kept, rcode, flags)
    return _answer(kept, sent, rcode, lifetimes, now_s)


def _check_question(data: bytes, sent: Sent, *, exact_case: bool) -> int:
    """The flags of a response to our question; raises ``BadReply`` for anything else."""
    if len(data) < dns.HEADER_SIZE:
        raise BadReply(Fault.MALFORMED, "a message has at least 12 octets")
    flags = (data[2] << 8) | data[3]
    if not flags & dns.QR or flags & _NOT_QUERY:
        raise BadReply(Fault.MALFORMED, "not a response to a query")
    asked = sent.asked
    end = dns.HEADER_SIZE + len(asked)
    if data[4] == 0 and data[5] == 1:
        back = data[dns.HEADER_SIZE : end]
        if back == asked:
            return flags
        if back[:-4].lower() == sent.question.key and back[-4:] == asked[-4:]:
            if not exact_case:
                return flags
            raise BadReply(Fault.WRONG_CASE, "the question came back in another case")
    elif data[4] == data[5] == 0 and flags & dns.RCODE_MASK == dns.Rcode.FORMERR:
        # Who cannot read a query cannot repeat its question (RFC 1035 section 4.1.1).
        raise BadReply(Fault.FORMERR, "the upstream could not read the query")
    raise BadReply(Fault.WRONG_QUESTION, "not the question that was asked")


def _judge(kept: Kept, rcode: int, flags: int) -> int:
    """The rcode of the answer; decides whether a chain is unfinished and whether anything is left to believe."""
    found = kept.found
    if kept.done:
        if rcode == _NXDOMAIN:
            raise BadReply(Fault.MALFORMED, "NXDOMAIN with an answer")
        return 0
    if kept.target is not None:  # what the rcode says of a name that is not the upstream's is not believed
        return 0
    if rcode == _YXDOMAIN:
        if not kept.overflow:
            raise BadReply(Fault.OTHER_RCODE, "YXDOMAIN without a DNAME that overflows")
        return rcode
    if kept.overflow:
        raise BadReply(Fault.BROKEN_CHAIN, "a DNAME leads to a name of more than 255 octets")
    if found.answer and not kept.answer:
        raise BadReply(Fault.OUT_OF_BAILIWICK, "the answer does not follow from the question")
    if rcode == _NXDOMAIN or kept.soa is not None:
        return rcode
    if kept.chain:
        kept.target = kept.name  # a CNAME alone: RFC 1034 section 4.3.2 leaves the rest to the asker
        return 0
    # RFC 2308 section 2.2: NS without SOA is a referral, unless whoever sends it recursed and so means NODATA.
    if not flags & dns.RA and any(entry.rtype == dns.Type.NS for entry in found.authority):
        raise BadReply(Fault.NOT_RECURSIVE, "a referral instead of an answer")
    return 0


def _answer(kept: Kept, sent: Sent, rcode: int, lifetimes: Lifetimes, now_s: int) -> Reply:
    found = kept.found
    authority = [] if kept.target is not None else kept.authority
    ttls = capped_ttls(found.data, kept.answer, authority, lifetimes, now_s)
    fresh = min(ttls[: len(kept.answer)], default=lifetimes.ttl_max_s)
    if not kept.done and kept.target is None:
        fresh = min(fresh, negative_ttl(found.data, kept.soa, lifetimes)) if rcode != _YXDOMAIN else fresh
        if kept.soa is not None:
            at = len(kept.answer) + authority.index(kept.soa)
            ttls[at] = min(ttls[at], negative_ttl(found.data, kept.soa, lifetimes))
    flags = dns.QR | (rcode & dns.RCODE_MASK)
    if found.copyable and kept.synthesised is None and _at_front(kept, authority):
        message, layout = _copy(kept, authority, ttls, sent, flags)
    else:
        message, layout = _render(kept, authority, ttls, sent, flags)
    chain = tuple(kept.chain)
    return Reply(
        message,
        layout,
        rcode,
        fresh,
        _facts(kept, chain),
        chain,
        kept.target,
        found.ede,
        found.ede_text,
    )


def _at_front(kept: Kept, authority: list[Entry]) -> bool:
    """Whether what is kept is a prefix of both sections, with nothing dropped in between."""
    found = kept.found
    if len(kept.answer) != len(found.answer):
        return not authority and kept.answer == found.answer[: len(kept.answer)]
    if kept.reordered and kept.answer != found.answer:
        return False
    return not authority or authority == found.authority[: len(authority)]


def _copy(kept: Kept, authority: list[Entry], ttls: list[int], sent: Sent, flags: int) -> tuple[bytes, bytes]:
    found = kept.found
    entries = kept.answer + authority if authority else kept.answer
    key = sent.question.key
    question_end = dns.HEADER_SIZE + len(sent.asked)
    out = bytearray(found.data[: entries[-1].end] if entries else found.data[:question_end])
    _HEADER.pack_into(out, 0, 0, flags, 1, len(kept.answer), len(authority), 0)
    out[dns.HEADER_SIZE : dns.HEADER_SIZE + len(key)] = key
    marks: list[bytes] = []
    answers = len(kept.answer)
    previous: tuple[bytes, int] | None = None
    for index, entry in enumerate(entries):
        if index == answers:
            previous = None
        ttl = ttls[index]
        if ttl != entry.ttl:
            out[entry.ttl_at : entry.ttl_at + 4] = ttl.to_bytes(4, "big")
        mark = (entry.owner, entry.rtype)
        marks.append(_LAYOUT_PACK(entry.start, entry.ttl_at, index >= answers, mark != previous))
        previous = mark
    return bytes(out), b"".join(marks)


def _render(kept: Kept, authority: list[Entry], ttls: list[int], sent: Sent, flags: int) -> tuple[bytes, bytes]:
    found = kept.found
    question = sent.question
    answers = len(kept.answer)
    # Names that point into the question must not bring its random case along.
    data = found.data[: dns.HEADER_SIZE] + question.key + found.data[dns.HEADER_SIZE + len(question.key) :]
    records = [_record(data, entry, ttl) for entry, ttl in zip(kept.answer + authority, ttls, strict=True)]
    answer = records[:answers]
    for after, owner, target in reversed(kept.synthesised or ()):
        # RFC 6672 section 3.1: the CNAME that a DNAME stands for has the DNAME's TTL.
        answer.insert(after, Record(owner, dns.Type.CNAME, question.qclass, answer[after - 1].ttl, target))
    asked = question.key + sent.asked[-4:]
    try:
        message = render(flags, asked, answer, records[answers:])
        return message, wire.layout(message, dns.HEADER_SIZE + len(asked))
    except MessageError as error:
        raise BadReply(Fault.MALFORMED, error.message) from error


def _record(data: bytes, entry: Entry, ttl: int) -> Record:
    owner, _ = follow(data, entry.start)
    return Record(owner, entry.rtype, entry.rclass, ttl, expand_rdata(data, entry.rdata_at, entry.end, entry.rtype))


_NO_FACTS: Final = facts.encode(facts.Facts())


def _facts(kept: Kept, chain: tuple[bytes, ...]) -> bytes:
    data = kept.found.data
    addresses = tuple([data[e.rdata_at : e.end] for e in kept.answer if e.rtype in _ADDRESSES])
    servers = tuple([e.target for e in kept.answer if e.rtype == dns.Type.NS])
    if not (addresses or chain or servers):
        return _NO_FACTS
    return facts.encode(facts.Facts(chain, addresses, servers))
