"""The additional section: glue of referrals, and addresses of names in MX, SRV, NS, SVCB, HTTPS, NAPTR records.

Only data of the zone that answers is used. Addresses of authoritative answers are data that the zone is
authoritative for (wildcards count, RFC 4592 section 4); only NS targets may be answered with glue below a cut.
"""

from __future__ import annotations

from typing import Final

from raydns.schemas import names
from raydns.schemas.dns import Type

from .node import Node, RRset
from .reader import ImageZone
from .response import ADDITIONAL, Response

ALIASES_MAX: Final = 8  # SVCB AliasMode steps followed (RFC 9460 section 2.4.2 wants a limit)
_ADDRESS_TYPES: Final = (int(Type.A), int(Type.AAAA))
_NS: Final = int(Type.NS)
_DNAME: Final = int(Type.DNAME)
_SRV: Final = int(Type.SRV)
_NAPTR: Final = int(Type.NAPTR)
_SERVICE_TYPES: Final = (int(Type.SVCB), int(Type.HTTPS))


def add_glue(response: Response, zone: ImageZone, cut: Node, rrset: RRset) -> None:
    """Addresses of a cut's servers: in-domain ones must be there (RFC 9471), siblings' follow."""
    siblings = []
    for name, key in rrset.targets:
        if names.is_subdomain(key, cut.key):
            _add_addresses(response, name, key, zone.find(key), required=True)
        else:
            siblings.append((name, key))
    for name, key in siblings:
        if names.is_subdomain(key, zone.apex):
            _add_addresses(response, name, key, _visible(zone, key, glue=True))


def add_additional(response: Response, zone: ImageZone, owner: bytes, rrset: RRset) -> None:
    """What an asker of this RRset will want next, as far as this zone has it."""
    rtype = rrset.rtype
    if rtype in _SERVICE_TYPES:
        _add_service(response, zone, owner, rrset)
        return
    for name, key in rrset.targets:
        if not names.is_subdomain(key, zone.apex):
            continue
        node = _visible(zone, key, glue=rtype == _NS)
        if rtype == _NAPTR and node is not None and _SRV in node.rrsets:  # RFC 3403 section 4.1: flag S
            response.add(ADDITIONAL, name, key, node.rrsets[_SRV], required=False)
        _add_addresses(response, name, key, node)


def _add_service(response: Response, zone: ImageZone, owner: bytes, rrset: RRset) -> None:
    # RFC 9460 section 4.1: addresses of ServiceMode targets; AliasMode targets with their own SVCB records.
    todo = [(owner, rrset)]
    seen = {owner}
    for _ in range(ALIASES_MAX):
        if not todo:
            return
        owner, rrset = todo.pop()
        alias = rrset.records[0][10:12] == b"\x00\x00"
        for name, key in rrset.targets:
            if key == names.ROOT:
                if alias:
                    continue  # section 2.5.1: AliasMode "." means that the service is not there
                name = key = owner  # section 2.5.2: ServiceMode "." means the owner
            if not names.is_subdomain(key, zone.apex):
                continue
            node = _visible(zone, key, glue=False)
            _add_addresses(response, name, key, node)
            following = node.rrsets.get(rrset.rtype) if alias and node is not None else None
            if following is not None and key not in seen:
                seen.add(key)
                response.add(ADDITIONAL, name, key, following, required=False)
                todo.append((key, following))


def _add_addresses(response: Response, name: bytes, key: bytes, node: Node | None, *, required: bool = False) -> None:
    if node is None:
        return
    for rtype in _ADDRESS_TYPES:
        rrset = node.rrsets.get(rtype)
        if rrset is not None:
            response.add(ADDITIONAL, name, key, rrset, required=required)


def _visible(zone: ImageZone, key: bytes, *, glue: bool) -> Node | None:
    """The node that would answer for a name, its wildcard counted; below a cut only where glue is wanted."""
    node = zone.apex_node
    starts = []
    position = 0
    below = len(key) - len(node.key)
    while position < below:
        starts.append(position)
        position += key[position] + 1
    for start in reversed(starts):
        if _DNAME in node.rrsets:
            return None
        child = zone.find(key[start:])
        if child is None:
            return zone.find(b"\x01*" + node.key)
        node = child
        if node.is_cut:
            return zone.find(key) if glue else None
    return node
