"""Answers from zone images: the algorithm of RFC 1034 section 4.3.2 as RFC 4592 and RFC 6672 refine it.

Theory of operation: ``respond`` is a loop of steps, one a CNAME or DNAME; ``_locate`` walks the labels from the apex
down and says where the name stands (found, at or below a cut, below a DNAME, covered by a wildcard, absent); the
rest puts RRsets into a ``Response``. A wildcard's own special records are not special (RFC 4592 section 4): NS at
``*`` makes no cut for the names that it covers, DNAME there redirects nobody.

Choices where RFCs leave one: ANY gets the one RRset with the lowest type (RFC 8482 section 4.1, as Knot); positive
answers carry no NS in authority (as Knot; NSD with minimal responses); a chain that leaves the zone goes on in another
zone that is served here (as NSD); AA speaks for the first owner of the answer (RFC 1035 section 4.1.1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from raydns.schemas import dns, names
from raydns.schemas.dns import Type

from .additional import add_additional, add_glue
from .node import Node, RRset
from .reader import ImageZone
from .response import ANSWER, AUTHORITY, Response

CNAME_STEPS_MAX: Final = 11  # design: limits
_YXDOMAIN: Final = 6  # RFC 2136 section 2.2, RFC 6672 section 2.2
_WILDCARD: Final = b"\x01*"

_NS: Final = int(Type.NS)
_CNAME: Final = int(Type.CNAME)
_DNAME: Final = int(Type.DNAME)
_DS: Final = int(Type.DS)
_ANY: Final = int(Type.ANY)

FindZone = Callable[[bytes, int], "ImageZone | None"]
"""The zone that answers for a name (key form) and type, or ``None``: not served here, or no usable image."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """A whole response without OPT; see the package's docstring for its fields."""

    message: bytes
    layout: bytes
    rcode: int
    incomplete_cname: bytes | None = None
    required: int = 0


def respond(
    key: bytes,
    qtype: int,
    qclass: int,
    zone: ImageZone,
    find_zone: FindZone,
    *,
    limit: int = dns.MESSAGE_SIZE_MAX,
) -> Answer:
    """Answers a question from ``zone``, following aliases into other zones.

    Args:
        key: the question's name in key form; it stands in the message in this form.
        qtype: the question's type.
        qclass: IN, or ANY, which is answered without AA (RFC 1034 section 4.3.2: class * is never authoritative).
        zone: the zone that ``find_zone`` gives for the question.
        find_zone: how a chain finds its next zone.
        limit: the most octets that the message may have.

    Raises:
        ImageError: an image turned out to be torn.
    """
    response = Response(key, qtype, qclass, limit)
    name = name_key = key
    current: ImageZone | None = zone
    seen = {key}
    incomplete = None
    for step in range(CNAME_STEPS_MAX + 1):
        assert current is not None
        target = _step(response, current, name, name_key, qtype, first=step == 0)
        if target is None or response.tc:
            break
        name, name_key = target, target.lower()
        if name_key in seen or step == CNAME_STEPS_MAX:
            break  # a loop, or a chain beyond its bound: what was found is the answer
        seen.add(name_key)
        current = find_zone(name_key, qtype)
        if current is None:
            incomplete = name
            break
    if qclass != dns.Class.IN:
        response.aa = False
    return Answer(response.message(), bytes(response.layout), response.rcode, incomplete, response.required)


def _step(response: Response, zone: ImageZone, name: bytes, key: bytes, qtype: int, *, first: bool) -> bytes | None:
    """Answers one name from one zone; gives the target of an alias that is to be followed."""
    node, key_at = _locate(zone, key, qtype)
    if key_at < 0:  # a cut at or above the name
        _refer(response, zone, node, first=first)
        return None
    if first:
        response.aa = True
    if key_at == 0:
        return _data(response, zone, node, node.owner, key, qtype)
    if _DNAME in node.rrsets:
        return _redirect(response, node, name, key, qtype)
    # RFC 4592 section 3.3.1: the closest encloser is known, now its wildcard child, which may be empty.
    wildcard = zone.find(_WILDCARD + node.key)
    if wildcard is not None:
        return _data(response, zone, wildcard, name, key, qtype)
    response.rcode = dns.Rcode.NXDOMAIN
    _add_soa(response, zone)
    return None


def _locate(zone: ImageZone, key: bytes, qtype: int) -> tuple[Node, int]:
    """Walks from the apex down.

    Returns:
        The node, and where its name starts in ``key``: 0 is the name itself, above 0 its closest encloser (or the
        DNAME above it); -1 a zone cut.
    """
    node = zone.apex_node
    below = len(key) - len(node.key)
    starts = []
    position = 0
    while position < below:
        starts.append(position)
        position += key[position] + 1
    at = below
    find = zone.find
    for start in reversed(starts):
        if _DNAME in node.rrsets:
            return node, at
        child = find(key[start:])
        if child is None:
            return node, at
        node, at = child, start
        # RFC 4035 section 3.1.4.1: DS belongs to the parent's side of the cut.
        if node.is_cut and not (start == 0 and qtype == _DS):
            return node, -1
    return node, 0


def _data(  # noqa: PLR0917 - the algorithm's own variables
    response: Response, zone: ImageZone, node: Node, owner: bytes, key: bytes, qtype: int
) -> bytes | None:
    """RFC 1034 section 4.3.2 step 3a and 3c: the node (or the wildcard for this name) against the type."""
    rrsets = node.rrsets
    rrset = rrsets.get(qtype)
    if rrset is not None:
        response.add(ANSWER, owner, key, rrset)
        if rrset.targets:
            add_additional(response, zone, key, rrset)
        return None
    if qtype == _ANY and rrsets:
        response.add(ANSWER, owner, key, next(iter(rrsets.values())))
        return None
    alias = rrsets.get(_CNAME)
    if alias is None:
        _add_soa(response, zone)
        return None
    response.add(ANSWER, owner, key, alias)
    return alias.records[0][10:]


def _redirect(response: Response, node: Node, name: bytes, key: bytes, qtype: int) -> bytes | None:
    """RFC 6672 section 3.2 step 3c: the DNAME, and the CNAME made from it, with its TTL (section 3.1)."""
    dname = node.rrsets[_DNAME]
    response.add(ANSWER, node.owner, node.key, dname)
    target = name[: len(key) - len(node.key)] + dname.records[0][10:]
    if len(target) > names.NAME_SIZE_MAX:
        response.rcode = _YXDOMAIN
        return None
    response.add(ANSWER, name, key, _cname(target, dname.ttl))
    # The CNAME answers a question for CNAME; NSD and Knot follow it for all other types, ANY among them.
    return None if qtype == _CNAME else target


def _cname(target: bytes, ttl: int) -> RRset:
    head = _CNAME.to_bytes(2, "big") + b"\x00\x01" + ttl.to_bytes(4, "big") + len(target).to_bytes(2, "big")
    rrset = RRset(_CNAME, ttl, (head + target,))
    rrset.parts = ((((b"", target, target.lower()),), b""),)
    return rrset


def _refer(response: Response, zone: ImageZone, cut: Node, *, first: bool) -> None:
    if first:
        response.aa = False
    rrset = cut.rrsets[_NS]
    response.add(AUTHORITY, cut.owner, cut.key, rrset)
    add_glue(response, zone, cut, rrset)


def _add_soa(response: Response, zone: ImageZone) -> None:
    response.add(AUTHORITY, zone.apex_node.owner, zone.apex, zone.negative_soa)
