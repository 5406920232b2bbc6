"""Zones for the tests of images: from master-file text to an opened image and a table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

from raydns.actors.zone.image_writer import ZoneSource, build
from raydns.actors.zone.master import parse
from raydns.nodes.images import Answer, ZoneTable
from raydns.schemas import names, wire
from raydns.schemas.cluster import ImageRef, ZoneEntry

HEAD = "$TTL 3600\n@ SOA ns hostmaster 1 7200 900 86400 300\n@ NS ns\nns A 192.0.2.1\n"


def table(folder: Path, zones: Mapping[str, str]) -> ZoneTable:
    """A table of zones given as text by apex."""
    entries = []
    paths = {}
    for apex, text in zones.items():
        data = parse(text, names.from_text(apex), origin_file=f"{apex}zone")
        octets = build([ZoneSource(data)])
        sha256 = hashlib.sha256(octets).hexdigest()
        paths[sha256] = folder / f"{sha256}.img"
        paths[sha256].write_bytes(octets)
        ref = ImageRef(sha256, len(octets))
        entries.append(ZoneEntry(data.apex, 0, 0, data.serial, 0, ref, data.records))
    made = ZoneTable(entries, paths)
    assert made.refusals == []
    return made


def ask(zones: ZoneTable, name: str, qtype: str, *, qclass: str = "IN") -> dns.message.Message:
    """The answer as dnspython reads it; checks on the way that layout and message agree."""
    found = raw(zones, name, qtype, qclass=qclass)
    return dns.message.from_wire(found.message)


def raw(zones: ZoneTable, name: str, qtype: str, *, qclass: str = "IN") -> Answer:
    """The answer as the engine gets it."""
    query = dns.message.make_query(dns.name.from_wire(names.from_text(name), 0)[0], qtype, qclass)
    found = zones.answer(wire.parse_query(query.to_wire()))
    assert found is not None
    assert wire.layout(found.message) == found.layout
    assert found.rcode == found.message[3] & 15
    return found


def section(rrsets: list[dns.rrset.RRset]) -> list[str]:
    """A section as sorted text lines."""
    return sorted(line for rrset in rrsets for line in rrset.to_text().splitlines())


def rcode(message: dns.message.Message) -> str:
    """The rcode as text."""
    return dns.rcode.to_text(message.rcode())


def is_aa(message: dns.message.Message) -> bool:
    """Whether the answer is authoritative."""
    return bool(message.flags & dns.flags.AA)
