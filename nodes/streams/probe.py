"""The answer to the health monitor's question, which every stream server gives by itself.

A probe goes the way that queries go (socket, frames, loop of the data plane), so that its answer proves that way.
"""

from __future__ import annotations

import struct
from typing import Final

from raydns.schemas import dns, names, wire
from raydns.schemas.batch import AnswerItem, QueryFlag, QueryItem
from raydns.schemas.errors import MessageError

PROBE_NAME: Final = names.from_text("health.raydns.")
# Header with ID 0, RD, and one question; what a monitor sends.
PROBE_MESSAGE: Final = (
    struct.pack("!HHHHHH", 0, dns.RD, 1, 0, 0, 0) + PROBE_NAME + struct.pack("!HH", dns.Type.TXT, dns.Class.CH)
)


def probe_query(deadline_ms: int) -> QueryItem:
    """The health monitor's question."""
    return QueryItem(0, PROBE_MESSAGE, deadline_ms, flags=QueryFlag.PROBE)


def answer_probe(item: QueryItem, identity: str) -> AnswerItem | None:
    """NOERROR with a TXT of the actor's name; ``None`` where the item is no such probe."""
    if not item.flags & QueryFlag.PROBE:
        return None
    try:
        query = wire.parse_query(item.message)
    except MessageError:
        return None
    if (query.key, query.qtype, query.qclass) != (PROBE_NAME, dns.Type.TXT, dns.Class.CH):
        return None
    text = identity.encode()[:255]
    rdata = bytes((len(text),)) + text
    flags = dns.QR | dns.AA | (query.flags & (dns.RD | dns.CD))
    message = (
        struct.pack("!HHHHHH", 0, flags, 1, 1, 0, 0)
        + query.key
        + struct.pack("!HH", dns.Type.TXT, dns.Class.CH)
        + struct.pack("!HHHIH", 0xC00C, dns.Type.TXT, dns.Class.CH, 0, len(rdata))
        + rdata
    )
    return AnswerItem(item.slot, message, layout=wire.layout(message))
