"""What an LLM zone serves beside answers: SOA, NS, CAA, help, the address of its name server, and NODATA.

Never NXDOMAIN: a resolver that knows RFC 8020 would then deny every prompt below that name.
"""

from __future__ import annotations

import struct
from typing import Final

from raydns.schemas import dns, names, wire

from .answer import Message, Record, cut, message, txt_rdata

TTL_S: Final = 300
"""Also the negative TTL: minimised names of one prompt are asked once in five minutes."""
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"
_HINFO: Final = b"\x07RFC8482\x00"
HINFO_TYPE: Final = 13

HELP_LINES: Final = (
    'Ask: dig @server "what.is.the.capital.of.france{zone}" TXT - dots, - and _ between words are spaces, -- is a '
    "hyphen, at most 63 octets a label",
    'or "..." with spaces as one label; upper and lower case are one question',
    "A slow answer says pending: ask again, the same call goes on. +tcp reads long ones",
    "A language model answers and may be wrong. DNS is clear text and models may learn from prompts: nothing private",
)


def help_text(zone: bytes | None) -> str:
    """Four lines for a person; below a zone the example names it."""
    suffix = "." + names.to_text(zone).rstrip(".") if zone else ""
    return " / ".join(HELP_LINES).replace("{zone}", suffix)


def help_message(query: wire.Query, zone: bytes | None, size_max: int) -> Message:
    """The help as one TXT record."""
    flags = dns.AA if zone is not None else 0
    return message(query, flags, [Record(dns.Type.TXT, TTL_S, txt_rdata(cut(help_text(zone), size_max)))])


def static(query: wire.Query, zone: bytes, destination: bytes) -> Message | None:
    """The records that the zone has at this name for other types than TXT; ``None``: it has none.

    Args:
        query: of class IN.
        zone: the LLM zone, in key form.
        destination: the address that was asked, 16 octets: where the zone's name server is for this client.
    """
    if query.qtype == dns.Type.ANY:  # RFC 8482 section 4.2
        return message(query, dns.AA, [Record(HINFO_TYPE, TTL_S, _HINFO)])
    if query.key == zone:
        record = _at_apex(query, zone)
        return message(query, dns.AA, [record]) if record is not None else None
    if query.key == _server(zone):
        address = _address(query.qtype, destination)
        return message(query, dns.AA, [Record(query.qtype, TTL_S, address)]) if address else None
    return None


def nodata(query: wire.Query, zone: bytes | None) -> Message:
    """The name is there, the type is not (RFC 2308 section 2.2); without a zone there is no SOA to show."""
    if zone is None:
        return message(query, 0, [])
    return message(query, dns.AA, [], [_soa(query, zone)])


def _at_apex(query: wire.Query, zone: bytes) -> Record | None:
    if query.qtype == dns.Type.SOA:
        return _soa(query, zone)
    if query.qtype == dns.Type.NS:
        return Record(dns.Type.NS, TTL_S, _server(zone))
    if query.qtype == dns.Type.CAA:
        # RFC 8659 section 4.2: no authority may issue for names whose TXT records strangers can shape.
        return Record(dns.Type.CAA, TTL_S, b"\x00\x05issue;")
    return None


def _soa(query: wire.Query, zone: bytes) -> Record:
    owner = struct.pack("!H", 0xC000 | (dns.HEADER_SIZE + len(query.key) - len(zone)))
    rdata = _server(zone) + b"\x0ahostmaster" + zone + struct.pack("!IIIII", 1, 3600, 600, 604800, TTL_S)
    return Record(dns.Type.SOA, TTL_S, rdata, owner)


def _server(zone: bytes) -> bytes:
    return b"\x02ns" + zone


def _address(qtype: int, destination: bytes) -> bytes:
    mapped = destination.startswith(_V4_MAPPED)
    if qtype == dns.Type.A and mapped:
        return destination[12:]
    if qtype == dns.Type.AAAA and not mapped and any(destination):
        return destination
    return b""
