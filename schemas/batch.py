"""The batch: what travels on the hot hops (ingress → cache shard → query actor → zone shard), and back.

One contiguous buffer, little-endian, version 1. A native engine and another language must be able to make it
from this page alone:

    batch    = magic "RB" | version u8 | kind u8 (1 queries, 2 answers) | count u16 | items…
    query    = QUERY_FIXED | tsig key | identity | message
    answer   = ANSWER_FIXED | EDE text | layout | facts | rooms | message

Limits: at most ``ITEMS_MAX`` items and ``BATCH_SIZE_MAX`` octets a batch; a message has at most 65,535 octets;
key and identity 255 each. Everything is bounds-checked on reading; whatever is wrong is a ``BatchError``.
Versions in an item are hints: who does not know one answers ``RETRY``, and never guesses.
Deadlines are remaining milliseconds, since machines do not share a clock.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

import msgspec

from raydns.schemas.dns import direct_members
from raydns.schemas.errors import BatchError

MAGIC: Final = b"RB"
VERSION: Final = 1
ITEMS_MAX: Final = 1024
BATCH_SIZE_MAX: Final = 1 << 20
ROOMS_MAX: Final = 32

_HEADER: Final = struct.Struct("<2sBBH")
# slot, flags, transport, ecs scope, source, source port, destination, destination port, class, view, rights,
# class table version, ring version, state version, deadline ms, ring hash, trace id, span id, trace flags,
# budget: upstream queries left u16, octets left u32, cname steps left u8; lengths: key, identity, message
QUERY_FIXED: Final = struct.Struct("<IHBB16sH16sHHHHQQQIQ16s8sBHIBBBH")
# slot, flags, scope, EDE text length, EDE code (-1: none), reserved, fresh s, stale s, began (state version),
# ring version; lengths: layout, facts, rooms, message
ANSWER_FIXED: Final = struct.Struct("<IHBBhHIIQQHHHH")
# room, outcome, instance, start (Unix µs), duration µs
ROOM: Final = struct.Struct("<BBHQI")

NO_ADDRESS: Final = bytes(16)
NO_TRACE: Final = bytes(16)
NO_SPAN: Final = bytes(8)


@direct_members
class Kind(IntEnum):
    """What a batch holds."""

    QUERIES = 1
    ANSWERS = 2


# Plain integers: an operation on an ``enum.IntFlag`` costs 1 to 2 µs, on an integer 0.03, and a miss makes thirty.
class QueryFlag:
    """Facts about a query that the message itself does not tell."""

    PROVEN: Final = 1  # the source address is real: TCP, or a valid server cookie
    EARLY_DATA: Final = 2  # came in TLS early data: no side effects
    LOOKUP_ONLY: Final = 4  # only from what is held already: RD=0 never goes upstream
    RELAYED: Final = 8  # a non-owner passed it on; must be answered here, never relayed again
    APEX: Final = 16  # the name is under an apex served here whose image this machine lacks
    PROBE: Final = 32  # the health monitor's; never cached, never counted as a client's
    PREFETCH: Final = 64  # nobody waits


class Right:
    """What a client class may do (design: client class); travels as ``rights``."""

    CACHE: Final = 1  # read cached answers
    RECURSE: Final = 2
    FORWARD: Final = 4
    CATCH_ALL: Final = 8  # names that a catch-all (the LLM) answers
    LLM: Final = 16  # names in LLM zones
    UPDATE: Final = 32
    TRANSFER: Final = 64
    TRACE: Final = 128  # may ask for a trace by EDNS option 65500


class AnswerFlag:
    """What a receiver may do with an answer."""

    SHAREABLE: Final = 1  # the same for all who share its key; otherwise this slot only
    MORE: Final = 2  # another answer for this slot follows (transfers, streamed text)
    RETRY: Final = 4  # the versions were unknown: ask again with newer tables
    AUTHORITATIVE: Final = 8  # holds authoritative data: cached in no tier
    SECURE: Final = 16  # validated (RFC 4033)
    STALE: Final = 32  # served beyond its TTL (RFC 8767)
    LOCAL_FAILURE: Final = 64  # a failure of our own making (budget, shedding, deadline): cached in no tier
    TRACED: Final = 128  # rooms belong to a sampled query
    NEVER_KEPT: Final = MORE | RETRY | AUTHORITATIVE | LOCAL_FAILURE


@direct_members
class Room(IntEnum):
    """The rooms that a query meets, as its time stamps name them."""

    INGRESS = 1
    CACHE = 2
    QUERY = 3
    UPSTREAM = 4
    ZONE = 5
    LLM = 6
    FILTER = 7


@direct_members
class Outcome(IntEnum):
    """What happened in a room."""

    OK = 0
    HIT = 1
    MISS = 2
    JOINED = 3  # waited for a flight that somebody else leads
    STALE = 4
    REFUSED = 5
    FAILED = 6
    TIMEOUT = 7
    NEGATIVE = 8
    PENDING = 9


class RoomStamp(msgspec.Struct, frozen=True, gc=False):
    """When a query was in a room, and what came of it."""

    room: int
    outcome: int
    instance: int  # number of the actor within its kind; 0 for the ingress
    start_us: int  # Unix time
    duration_us: int


class QueryItem(msgspec.Struct, gc=False):
    """One query on its way up."""

    slot: int  # u32, unique among the connection's unanswered queries
    message: bytes
    deadline_ms: int
    flags: int = 0  # QueryFlag
    transport: int = 1
    scope: int = 0  # ECS source prefix length of the key
    source: bytes = NO_ADDRESS  # IPv6 or IPv4-mapped, 16 octets
    source_port: int = 0
    destination: bytes = NO_ADDRESS
    destination_port: int = 0
    class_id: int = 0
    view_id: int = 0
    rights: int = 0  # Right
    class_version: int = 0
    ring_version: int = 0
    state_version: int = 0
    ring_hash: int = 0
    trace_id: bytes = NO_TRACE
    span_id: bytes = NO_SPAN
    trace_flags: int = 0  # bit 0: sampled (W3C Trace Context)
    queries_left: int = 128  # the one budget a client query (design: rule 3)
    octets_left: int = 100_000
    cname_left: int = 11
    tsig_key: bytes = b""  # name of the verified key, text
    identity: bytes = b""

    @property
    def sampled(self) -> bool:
        """Whether spans are wanted for this query."""
        return bool(self.trace_flags & 1)


class AnswerItem(msgspec.Struct, gc=False):
    """One answer on its way down: the whole message without OPT, and what a tier must know to keep it."""

    slot: int
    message: bytes  # ID 0, question's name in key form, no OPT
    flags: int = 0  # AnswerFlag
    scope: int = 0
    fresh_s: int = 0  # how long it may be served as it is, seconds; 0: only to those who wait
    stale_s: int = 0  # how much longer it may be served stale
    began: int = 0  # packed state version at which its flight began
    ring_version: int = 0  # of the answerer's ring, so that the asker learns of a newer one
    layout: bytes = b""  # wire.layout(message)
    facts: bytes = b""  # msgpack of facts.Facts: chain names, addresses, name-server names
    rooms: bytes = b""  # ROOM entries, in the order met
    ede: int = -1  # an Extended DNS Error (RFC 8914) to render, -1 for none
    ede_text: str = ""  # its EXTRA-TEXT, at most 255 octets of UTF-8


def encode_queries(items: list[QueryItem]) -> bytes:
    """One batch of queries; raises ``BatchError`` where a limit is exceeded."""
    parts = [_HEADER.pack(MAGIC, VERSION, Kind.QUERIES, _checked_count(len(items)))]
    pack = QUERY_FIXED.pack
    try:
        for q in items:
            parts.append(
                pack(
                    q.slot,
                    q.flags,
                    q.transport,
                    q.scope,
                    q.source,
                    q.source_port,
                    q.destination,
                    q.destination_port,
                    q.class_id,
                    q.view_id,
                    q.rights,
                    q.class_version,
                    q.ring_version,
                    q.state_version,
                    q.deadline_ms,
                    q.ring_hash,
                    q.trace_id,
                    q.span_id,
                    q.trace_flags,
                    q.queries_left,
                    q.octets_left,
                    q.cname_left,
                    len(q.tsig_key),
                    len(q.identity),
                    len(q.message),
                )
            )
            parts.append(q.tsig_key)
            parts.append(q.identity)
            parts.append(q.message)
    except struct.error as error:
        raise BatchError(f"a query does not fit the batch: {error}") from error
    return _checked_size(b"".join(parts))


def encode_answers(items: list[AnswerItem]) -> bytes:
    """One batch of answers; raises ``BatchError`` where a limit is exceeded."""
    parts = [_HEADER.pack(MAGIC, VERSION, Kind.ANSWERS, _checked_count(len(items)))]
    pack = ANSWER_FIXED.pack
    try:
        for a in items:
            text = _cut_text(a.ede_text) if a.ede_text else b""
            parts.append(
                pack(
                    a.slot,
                    a.flags,
                    a.scope,
                    len(text),
                    a.ede,
                    0,
                    a.fresh_s,
                    a.stale_s,
                    a.began,
                    a.ring_version,
                    len(a.layout),
                    len(a.facts),
                    len(a.rooms),
                    len(a.message),
                )
            )
            parts += (text, a.layout, a.facts, a.rooms, a.message)
    except struct.error as error:
        raise BatchError(f"an answer does not fit the batch: {error}") from error
    return _checked_size(b"".join(parts))


def _cut_text(text: str) -> bytes:
    raw = text.encode("utf-8", "replace")
    return raw if len(raw) <= 255 else raw[:255].decode("utf-8", "ignore").encode()  # never half a character


def kind_of(data: bytes) -> Kind:
    """What the batch holds; raises ``BatchError`` for what is no batch of our version."""
    return Kind(_open(data)[0])


def decode_queries(data: bytes) -> list[QueryItem]:
    """The queries of a batch; raises ``BatchError``."""
    kind, count = _open(data)
    if kind != Kind.QUERIES:
        raise BatchError("a batch of answers where queries were expected")
    items: list[QueryItem] = []
    position = _HEADER.size
    fixed = QUERY_FIXED.size
    unpack = QUERY_FIXED.unpack_from
    size = len(data)
    for _ in range(count):
        if position + fixed > size:
            raise BatchError("a query is truncated")
        (
            slot,
            flags,
            transport,
            scope,
            source,
            source_port,
            destination,
            destination_port,
            class_id,
            view_id,
            rights,
            class_version,
            ring_version,
            state_version,
            deadline_ms,
            ring_hash,
            trace_id,
            span_id,
            trace_flags,
            queries_left,
            octets_left,
            cname_left,
            key_len,
            identity_len,
            message_len,
        ) = unpack(data, position)
        key_at = position + fixed
        identity_at = key_at + key_len
        message_at = identity_at + identity_len
        position = message_at + message_len
        if position > size:
            raise BatchError("a query runs over the end of its batch")
        items.append(
            QueryItem(
                slot,
                data[message_at:position],
                deadline_ms,
                flags,
                transport,
                scope,
                source,
                source_port,
                destination,
                destination_port,
                class_id,
                view_id,
                rights,
                class_version,
                ring_version,
                state_version,
                ring_hash,
                trace_id,
                span_id,
                trace_flags,
                queries_left,
                octets_left,
                cname_left,
                data[key_at:identity_at],
                data[identity_at:message_at],
            )
        )
    if position != size:
        raise BatchError("octets behind the last query")
    return items


def decode_answers(data: bytes) -> list[AnswerItem]:
    """The answers of a batch; raises ``BatchError``."""
    kind, count = _open(data)
    if kind != Kind.ANSWERS:
        raise BatchError("a batch of queries where answers were expected")
    items: list[AnswerItem] = []
    position = _HEADER.size
    fixed = ANSWER_FIXED.size
    unpack = ANSWER_FIXED.unpack_from
    size = len(data)
    for _ in range(count):
        if position + fixed > size:
            raise BatchError("an answer is truncated")
        (
            slot,
            flags,
            scope,
            text_len,
            ede,
            _,
            fresh,
            stale,
            began,
            ring,
            layout_len,
            facts_len,
            rooms_len,
            message_len,
        ) = unpack(data, position)
        text_at = position + fixed
        layout_at = text_at + text_len
        facts_at = layout_at + layout_len
        rooms_at = facts_at + facts_len
        message_at = rooms_at + rooms_len
        position = message_at + message_len
        if position > size:
            raise BatchError("an answer runs over the end of its batch")
        items.append(
            AnswerItem(
                slot,
                data[message_at:position],
                flags,
                scope,
                fresh,
                stale,
                began,
                ring,
                data[layout_at:facts_at],
                data[facts_at:rooms_at],
                data[rooms_at:message_at],
                ede,
                data[text_at:layout_at].decode("utf-8", "replace") if text_len else "",
            )
        )
    if position != size:
        raise BatchError("octets behind the last answer")
    return items


def _open(data: bytes) -> tuple[int, int]:
    if len(data) < _HEADER.size:
        raise BatchError("a batch has at least 6 octets")
    magic, version, kind, count = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise BatchError("not a batch")
    if version != VERSION:
        raise BatchError(f"batch version {version}; this side speaks {VERSION}")
    if kind not in (Kind.QUERIES, Kind.ANSWERS):
        raise BatchError(f"unknown kind of batch: {kind}")
    if count > ITEMS_MAX or len(data) > BATCH_SIZE_MAX:
        raise BatchError(f"a batch of {count} items and {len(data)} octets exceeds the limits")
    return kind, count


def _checked_count(count: int) -> int:
    if count > ITEMS_MAX:
        raise BatchError(f"{count} items; a batch has at most {ITEMS_MAX}")
    return count


def _checked_size(data: bytes) -> bytes:
    if len(data) > BATCH_SIZE_MAX:
        raise BatchError(f"{len(data)} octets; a batch has at most {BATCH_SIZE_MAX}")
    return data


def stamp(room: int, outcome: int, instance: int, start_us: int, duration_us: int) -> bytes:
    """One room's time stamps, to be appended to an answer's ``rooms``."""
    return ROOM.pack(room, outcome, instance & 0xFFFF, start_us, min(max(duration_us, 0), 0xFFFFFFFF))


def stamps(rooms: bytes) -> list[RoomStamp]:
    """The rooms of an answer, in the order met; raises ``BatchError`` for a torn list."""
    if len(rooms) % ROOM.size:
        raise BatchError("a torn list of rooms")
    return [RoomStamp(*entry) for entry in ROOM.iter_unpack(rooms)]
