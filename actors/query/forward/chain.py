"""Which records of a reply the question leads to: the chain of CNAMEs and DNAMEs, its end, and the denial.

Everything here works on entries of one scan; the order of what is kept is the order of the chain, so that a CNAME
always stands before its target whatever the upstream did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from raydns.schemas import names

from .faults import BadReply, Fault
from .message import Question
from .scan import Entry, Scan

RRSET_SIZE_MAX: Final = 256  # design: limits
TYPES_A_NAME_MAX: Final = 100  # design: limits

_CNAME: Final = 5
_SOA: Final = 6
_DNAME: Final = 39
_RRSIG: Final = 46
_DENIALS: Final = frozenset({47, 50})  # NSEC, NSEC3
_ANY: Final = 255


class Kept:
    """What of a reply is believed."""

    __slots__ = (
        "answer",
        "authority",
        "chain",
        "done",
        "found",
        "name",
        "overflow",
        "question",
        "reordered",
        "soa",
        "synthesised",
        "target",
    )

    def __init__(self, found: Scan, question: Question) -> None:
        self.found = found
        self.question = question
        self.name = question.key  # the chain's end
        self.answer: list[Entry] = []
        self.authority: list[Entry] = []
        self.chain: list[bytes] = []  # owners of the CNAMEs followed
        self.done = False  # records at the chain's end were found
        self.reordered = False  # ``answer`` may stand in another order than the reply's
        self.overflow = False  # a DNAME led to a name that is too long
        self.soa: Entry | None = None  # of the zone that denies, an ancestor of ``name``
        self.target: bytes | None = None  # where the chain goes on at somebody else's
        self.synthesised: list[tuple[int, bytes, bytes]] | None = None  # (index in answer, owner, target)


def follow_chain(found: Scan, question: Question, owns: Callable[[bytes], bool] | None) -> Kept:
    """Picks what follows from the question; raises ``BadReply`` for loops, contradictions and too many records."""
    kept = Kept(found, question)
    if not _plain(kept):
        _walk(kept, owns)
    if found.authority and kept.target is None:
        _pick_authority(kept)
    return kept


def _plain(kept: Kept) -> bool:
    """The usual answer: all records are of the question's own name and type."""
    answer, question = kept.found.answer, kept.question
    key, qtype, qclass = question.key, question.qtype, question.qclass
    if not answer or len(answer) > RRSET_SIZE_MAX:
        return False
    for entry in answer:
        if entry[1] != qtype or entry[0] != key or entry[8] != qclass:
            return False
    kept.answer = answer
    kept.done = True
    return True


def _walk(kept: Kept, owns: Callable[[bytes], bool] | None) -> None:
    question = kept.question
    by_owner: dict[bytes, list[Entry]] = {}
    dnames: dict[bytes, Entry] = {}
    for entry in kept.found.answer:
        if entry.rclass == question.qclass:
            by_owner.setdefault(entry.owner, []).append(entry)
            if entry.rtype == _DNAME:
                dnames.setdefault(entry.owner, entry)
    qtype = question.qtype
    kept.reordered = True
    seen = {kept.name}
    while True:
        name = kept.name
        here = by_owner.get(name, [])
        target = _step_dname(kept, name, by_owner, dnames) if dnames else None
        if kept.overflow:
            return
        if target is not None and qtype in {_CNAME, _ANY}:
            kept.done = True  # the CNAME that the DNAME stands for is the answer
            return
        if target is None and _take_wanted(kept, here):
            return
        if target is None:
            target = _step_cname(kept, here)
        if target is None:
            return
        kept.chain.append(name)
        if target in seen:
            raise BadReply(Fault.BROKEN_CHAIN, "the chain of CNAMEs is a loop")
        seen.add(target)
        kept.name = target
        if owns is not None and not owns(target):
            kept.target = target
            return


def _take_wanted(kept: Kept, here: list[Entry]) -> bool:
    qtype = kept.question.qtype
    wanted = [e for e in here if qtype in {e.rtype, _ANY}]
    if not wanted:
        return False
    _check_limits(wanted)
    kept.answer += wanted
    if qtype not in {_ANY, _RRSIG}:
        _keep_signatures(kept, here, qtype)
    kept.done = True
    return True


def _step_cname(kept: Kept, here: list[Entry]) -> bytes | None:
    aliases = [e for e in here if e.rtype == _CNAME]
    if not aliases:
        return None
    if any(alias.target != aliases[0].target for alias in aliases):
        raise BadReply(Fault.BROKEN_CHAIN, "two CNAMEs at one name")
    kept.answer.append(aliases[0])
    _keep_signatures(kept, here, _CNAME)
    return aliases[0].target


def _step_dname(
    kept: Kept, name: bytes, by_owner: dict[bytes, list[Entry]], dnames: dict[bytes, Entry]
) -> bytes | None:
    """Follows a DNAME above the name (RFC 6672 section 2.2) and the CNAME that stands for it."""
    for ancestor in names.ancestors(name):
        if ancestor == name or ancestor not in dnames:
            continue
        dname = dnames[ancestor]
        target = name[: len(name) - len(ancestor)] + dname.target
        if dname not in kept.answer:
            kept.answer.append(dname)
            if kept.question.do:
                kept.answer += [e for e in by_owner[ancestor] if e.rtype == _RRSIG]
        if len(target) > names.NAME_SIZE_MAX:
            kept.overflow = True
            return None
        aliases = [e for e in by_owner.get(name, ()) if e.rtype == _CNAME]
        if any(alias.target != target for alias in aliases):
            raise BadReply(Fault.BROKEN_CHAIN, "a CNAME contradicts its DNAME")
        if aliases:
            kept.answer.append(aliases[0])
        else:
            if kept.synthesised is None:
                kept.synthesised = []
            kept.synthesised.append((len(kept.answer), name, target))
        return target
    return None


def _keep_signatures(kept: Kept, here: list[Entry], rtype: int) -> None:
    if kept.question.do:
        kept.answer += [e for e in here if e.rtype == _RRSIG and covered_type(kept.found.data, e) == rtype]


def covered_type(data: bytes, entry: Entry) -> int:
    """The type that an RRSIG covers (RFC 4034 section 3.1.1); -1 where it is too short to say."""
    if entry.end - entry.rdata_at < 18:
        return -1
    return (data[entry.rdata_at] << 8) | data[entry.rdata_at + 1]


def _check_limits(wanted: list[Entry]) -> None:
    counts: dict[int, int] = {}
    for entry in wanted:
        counts[entry.rtype] = counts.get(entry.rtype, 0) + 1
    if len(counts) > TYPES_A_NAME_MAX:
        raise BadReply(Fault.TOO_MANY_RECORDS, f"{len(counts)} types at one name")
    if max(counts.values()) > RRSET_SIZE_MAX:
        raise BadReply(Fault.TOO_MANY_RECORDS, f"an RRset of more than {RRSET_SIZE_MAX} records")


def _pick_authority(kept: Kept) -> None:
    """SOA of an ancestor for negative answers, and with DO what denies, from the same zone."""
    found, question = kept.found, kept.question
    zone: bytes | None = None
    if not kept.done:
        kept.soa = next(
            (
                e
                for e in found.authority
                if e.rtype == _SOA and e.rclass == question.qclass and names.is_subdomain(kept.name, e.owner)
            ),
            None,
        )
        if kept.soa is None:
            return
        zone = kept.soa.owner
    if not question.do:
        if kept.soa is not None:
            kept.authority = [kept.soa]
        return
    if zone is None:  # a positive answer from a wildcard brings the proof that nothing is closer (RFC 4035 3.1.3.3)
        zone = _signer_above(kept)
        if zone is None:
            return
    kept.authority = [e for e in found.authority if e is kept.soa or _denies(kept, e, zone)]
    if len(kept.authority) > RRSET_SIZE_MAX:
        raise BadReply(Fault.TOO_MANY_RECORDS, "a denial of too many records")


def _denies(kept: Kept, entry: Entry, zone: bytes) -> bool:
    if entry.rclass != kept.question.qclass or not names.is_subdomain(entry.owner, zone):
        return False
    if entry.rtype in _DENIALS:
        return True
    if entry.rtype != _RRSIG:
        return False
    covered = covered_type(kept.found.data, entry)
    return covered in _DENIALS or (covered == _SOA and kept.soa is not None and entry.owner == kept.soa.owner)


def _signer_above(kept: Kept) -> bytes | None:
    """The signer (RFC 4034 section 3.1.7) of a denial in the authority section, if it is above the chain's end."""
    found = kept.found
    for entry in found.authority:
        if entry.rtype == _RRSIG and covered_type(found.data, entry) in _DENIALS:
            signer = _uncompressed(found.data, entry.rdata_at + 18, entry.end)
            if signer is not None and names.is_subdomain(kept.name, signer):
                return signer
    return None


def _uncompressed(data: bytes, position: int, end: int) -> bytes | None:
    start = position
    while position < end and data[position]:
        if data[position] > names.LABEL_SIZE_MAX:
            return None
        position += data[position] + 1
    if position >= end or position + 1 - start > names.NAME_SIZE_MAX:
        return None
    return data[start : position + 1].lower()
