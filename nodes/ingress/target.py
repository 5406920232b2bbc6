"""A question on its way up: what makes it the same for many, and the item that carries it."""

from __future__ import annotations

from typing import Final

from raydns.schemas import dns, wire
from raydns.schemas.batch import QueryItem
from raydns.schemas.wire import Query

from .asked import Asked
from .l1 import Key

_QUESTION_ONLY: Final = b"\x00\x01\x00\x00\x00\x00\x00\x00"
_QUESTION_AND_OPT: Final = b"\x00\x01\x00\x00\x00\x00\x00\x01"
_OPT_DO: Final = wire.opt_record(udp_size=dns.UDP_SIZE_DEFAULT, do=True)


class Target:
    """All of a flight's identity: nothing of the client's is in it."""

    __slots__ = ("flags", "flight_key", "l1_key", "query", "ring_hash")

    def __init__(self, query: Query, l1_key: Key, flags: int, ring_hash: int) -> None:
        self.query = query  # only what is equal for all who share the key is used of it
        self.l1_key = l1_key
        self.flags = flags  # QueryFlag: what must not be mixed in one flight
        self.ring_hash = ring_hash
        # A resolver's question (RD=0) is not a stub's: neither may lead the other.
        self.flight_key: Key = (l1_key[0], l1_key[1] | flags << 64 | query.rd << 80)

    def matches(self, message: bytes) -> bool:
        """Whether an answer's question is ours, in key form (RFC 5452 section 9.1, between our own processes too)."""
        query = self.query
        question = query.key + query.qtype.to_bytes(2, "big") + query.qclass.to_bytes(2, "big")
        return message[dns.HEADER_SIZE : query.question_end] == question

    def message(self) -> bytes:
        """The query as it goes up."""
        query = self.query
        flags = query.flags & (dns.RD | dns.CD)
        question = query.key + query.qtype.to_bytes(2, "big") + query.qclass.to_bytes(2, "big")
        if not query.do:
            return b"\x00\x00" + flags.to_bytes(2, "big") + _QUESTION_ONLY + question
        return b"\x00\x00" + flags.to_bytes(2, "big") + _QUESTION_AND_OPT + question + _OPT_DO

    def item(
        self, slot: int, leader: Asked | None, *, flags: int, deadline_ms: int, versions: tuple[int, int, int]
    ) -> QueryItem:
        """The item for a flight; who leads is told, since limits and rights are charged to them."""
        item = QueryItem(slot, self.message(), deadline_ms, flags | self.flags, ring_hash=self.ring_hash)
        item.class_version, item.ring_version, item.state_version = versions
        if leader is None:
            return item
        client = leader.client
        item.transport = leader.transport
        item.source, item.source_port = client.address, leader.port
        item.destination, item.destination_port = leader.door.destination(leader.ancillary)
        item.class_id, item.view_id, item.rights = client.klass.id, client.klass.view, client.klass.rights
        if leader.trace is not None:
            item.trace_id, item.span_id, item.trace_flags = leader.trace.trace_id, leader.trace.span_id, 1
        return item
