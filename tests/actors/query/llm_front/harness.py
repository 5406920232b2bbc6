"""Queries as the pipeline gets them."""

from __future__ import annotations

import struct
from typing import Any

from raydns.schemas import dns, names, wire
from raydns.schemas.batch import QueryItem, Right


def message(name: str, qtype: int = 16, *, rd: bool = True, qclass: int = 1) -> bytes:
    """A query's octets."""
    flags = dns.RD if rd else 0
    return struct.pack("!HHHHHH", 0x1234, flags, 1, 0, 0, 0) + names.from_text(name) + struct.pack("!HH", qtype, qclass)


def query(name: str, qtype: int = 16, *, rd: bool = True, qclass: int = 1) -> wire.Query:
    """A query, parsed."""
    return wire.parse_query(message(name, qtype, rd=rd, qclass=qclass))


def item(name: str = "x.", qtype: int = 16, **changes: Any) -> QueryItem:
    """An item of a local client over TCP."""
    fields: dict[str, Any] = {
        "deadline_ms": 5000,
        "transport": dns.Transport.TCP,
        "rights": (Right.CATCH_ALL | Right.LLM | Right.CACHE),
        "source": bytes(10) + b"\xff\xff\x7f\x00\x00\x01",
        "destination": bytes(10) + b"\xff\xff\xc0\x00\x02\x35",
    }
    return QueryItem(7, message(name, qtype), **{**fields, **changes})
