"""A zone as plain data between master file, store and image: names to RRsets, in wire form."""

from __future__ import annotations

from typing import Final

import msgspec

from raydns.schemas.dns import Type

from .problems import Problem

RRS_MAX: Final = 256  # design: limits
TYPES_MAX: Final = 100


class RRsetData(msgspec.Struct):
    """All records of one type at a name, in the order of the file."""

    rtype: int
    ttl: int
    rdatas: list[bytes]
    """Uncompressed, names as written."""


class ZoneData(msgspec.Struct):
    """A whole zone."""

    apex: bytes
    """Key form."""
    names: dict[bytes, dict[int, RRsetData]]
    """By key, by type; every name is at or below the apex."""
    owners: dict[bytes, bytes] = {}
    """Owners as written, where they differ from their keys."""
    warnings: list[Problem] = []

    @property
    def records(self) -> int:
        """How many records there are."""
        return sum(len(rrset.rdatas) for rrsets in self.names.values() for rrset in rrsets.values())

    @property
    def soa(self) -> RRsetData:
        """The SOA; a ``ZoneData`` without one is never made by the parser."""
        return self.names[self.apex][Type.SOA]

    @property
    def serial(self) -> int:
        """The SOA's serial (RFC 1035 section 3.3.13)."""
        return int.from_bytes(self.soa.rdatas[0][-20:-16], "big")

    @property
    def minimum(self) -> int:
        """The SOA's MINIMUM: the TTL of negative answers (RFC 2308 section 4)."""
        return int.from_bytes(self.soa.rdatas[0][-4:], "big")


def serial_is_newer(new: int, old: int) -> bool:
    """Serial number arithmetic (RFC 1982 section 3.2)."""
    return new != old and (new - old) & 0xFFFFFFFF < 0x80000000
