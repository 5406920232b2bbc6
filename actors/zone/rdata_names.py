"""Where names stand in the RDATA of each type that has some, and what may be done with them."""

from __future__ import annotations

from typing import Final

from raydns.schemas.dns import Type
from raydns.schemas.images import NameFlag

_COMPRESS: Final = int(NameFlag.COMPRESS)
_ADDITIONAL: Final = int(NameFlag.ADDITIONAL)

# One name at a fixed offset. RFC 3597 section 4: only the types of RFC 1035 are compressed.
_FIXED: Final[dict[int, tuple[int, int]]] = {
    int(Type.NS): (0, _COMPRESS | _ADDITIONAL),
    3: (0, _COMPRESS),  # MD
    4: (0, _COMPRESS),  # MF
    int(Type.CNAME): (0, _COMPRESS),
    7: (0, _COMPRESS),  # MB
    8: (0, _COMPRESS),  # MG
    9: (0, _COMPRESS),  # MR
    int(Type.PTR): (0, _COMPRESS),
    int(Type.MX): (2, _COMPRESS | _ADDITIONAL),
    18: (2, _ADDITIONAL),  # AFSDB (RFC 1183)
    21: (2, _ADDITIONAL),  # RT (RFC 1183)
    int(Type.SRV): (6, _ADDITIONAL),  # RFC 2782: not compressed
    36: (2, _ADDITIONAL),  # KX (RFC 2230)
    int(Type.DNAME): (0, 0),  # RFC 6672 section 2.5: not compressed
    int(Type.SVCB): (2, _ADDITIONAL),  # RFC 9460 section 2.2: not compressed
    int(Type.HTTPS): (2, _ADDITIONAL),
}
_TWO: Final = frozenset({int(Type.SOA), 14})  # SOA and MINFO begin with two names
TYPES_WITH_NAMES: Final = frozenset(_FIXED) | _TWO | {int(Type.NAPTR)}

Reference = tuple[int, int, int]
"""RR number (0xFFFF: every RR), offset in RDATA, flags."""


def references(rtype: int, rdatas: list[bytes]) -> list[Reference]:
    """The names in an RRset's RDATA, as an image refers to them; RDATA must be well-formed."""
    fixed = _FIXED.get(rtype)
    if fixed is not None:
        return [(0xFFFF, fixed[0], fixed[1])]
    if rtype in _TWO:
        found: list[Reference] = []
        for number, rdata in enumerate(rdatas):
            found += [(number, 0, _COMPRESS), (number, _name_end(rdata, 0), _COMPRESS)]
        return found
    if rtype == Type.NAPTR:
        return [(number, _naptr_name(rdata), _ADDITIONAL) for number, rdata in enumerate(rdatas)]
    return []


def names_of(rtype: int, rdata: bytes) -> list[tuple[bytes, int]]:
    """Each name in one record's RDATA, as written, with its flags."""
    return [(rdata[at : _name_end(rdata, at)], flags) for _, at, flags in references(rtype, [rdata])]


def _name_end(rdata: bytes, at: int) -> int:
    while size := rdata[at]:
        at += size + 1
    return at + 1


def _naptr_name(rdata: bytes) -> int:
    # RFC 3403 section 4.1: order, preference, then flags, services and regexp as character-strings.
    at = 4
    for _ in range(3):
        at += rdata[at] + 1
    return at
