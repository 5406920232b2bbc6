"""How long the records of a reply may live: one TTL an RRset, within our bounds and those of its signatures."""

from __future__ import annotations

from typing import Final

import msgspec

from .scan import Entry

_RRSIG: Final = 46
_SERIAL_HALF: Final = 1 << 31


class Lifetimes(msgspec.Struct, frozen=True, gc=False):
    """Bounds of TTLs, in seconds (section ``cache``)."""

    ttl_max_s: int = 86400
    negative_ttl_max_s: int = 3600
    failure_ttl_s: int = 5
    stale_max_s: int = 0  # how long beyond its TTL an answer may be served (RFC 8767)


def capped_ttls(
    data: bytes, answer: list[Entry], authority: list[Entry], lifetimes: Lifetimes, now_s: int
) -> list[int]:
    """A TTL for each record of ``answer``, then of ``authority``.

    Records of one RRset get the least of their TTLs (RFC 2181 section 5.2), one above 2^31 counts as 0
    (section 8), and none exceeds its signature's original TTL or what is left of its validity (RFC 4035 5.3.3).
    """
    entries = answer + authority if authority else answer
    ttl_max = lifetimes.ttl_max_s
    ttls = [(e[2] if e[2] < ttl_max else ttl_max) if e[2] < _SERIAL_HALF else 0 for e in entries]
    if len(entries) < 2:
        return ttls
    least: dict[tuple[bytes, int], int] = {}
    sets: list[tuple[bytes, int]] = []
    for index, entry in enumerate(entries):
        rtype = entry[1]
        ttl = ttls[index]
        if rtype == _RRSIG and entry.end - entry.rdata_at >= 18:
            rtype = (data[entry.rdata_at] << 8) | data[entry.rdata_at + 1]
            ttl = min(ttl, _signature_bound(data, entry, now_s))
        rrset = (entry[0], rtype)
        sets.append(rrset)
        known = least.get(rrset)
        if known is None or ttl < known:
            least[rrset] = ttl
    return [least[rrset] for rrset in sets]


def _signature_bound(data: bytes, entry: Entry, now_s: int) -> int:
    at = entry.rdata_at
    original = int.from_bytes(data[at + 4 : at + 8], "big")
    left = (int.from_bytes(data[at + 8 : at + 12], "big") - now_s) & 0xFFFFFFFF
    # Times of signatures are serial numbers (RFC 4034 section 3.1.5): above half of the circle is the past.
    return min(original, 0 if left >= _SERIAL_HALF else left)


def negative_ttl(data: bytes, soa: Entry | None, lifetimes: Lifetimes) -> int:
    """How long a negative answer lives (RFC 2308 section 5); without an SOA only for those who wait."""
    if soa is None or soa.ttl >= _SERIAL_HALF:
        return 0
    minimum = int.from_bytes(data[soa.end - 4 : soa.end], "big")
    return min(soa.ttl, minimum, lifetimes.negative_ttl_max_s)
