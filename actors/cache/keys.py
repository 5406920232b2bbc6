"""What makes two queries the same: the key of entries and flights, as one ``bytes``.

Python's hash of ``bytes`` is keyed anew in each process, so that nobody outside can aim at one bucket (design:
in-process tables that strangers can fill use a keyed hash). One object a key is also the smallest form of it.
"""

from __future__ import annotations

import struct
from typing import Final

from raydns.schemas import dns, wire
from raydns.schemas.batch import QueryFlag, QueryItem

_TAIL: Final = struct.Struct("<BHB")
TRANSFERS: Final = frozenset({int(dns.Type.AXFR), int(dns.Type.IXFR)})

DO_BIT: Final = 1
CD_BIT: Final = 2
APEX_BIT: Final = 4  # answered from a zone elsewhere: coalesced, never kept
RELAY_BIT: Final = 8  # on its way to another shard: somebody who was relayed to us must not wait for it
LOOKUP_BIT: Final = 16  # only from what is held: its refusal must not reach those who want more


def question_of(query: wire.Query, message: bytes) -> bytes:
    """The question in key form: the name lowered, type and class as they are."""
    # Lowering the whole would turn type 65 (HTTPS, octet 0x41) into type 97.
    return query.key + message[query.question_end - 4 : query.question_end]


def key_of(query: wire.Query, item: QueryItem, question: bytes) -> bytes:
    """(name, type, class, DO, CD, view, scope), and the client's prefix where there is a scope."""
    edns = query.edns
    mark = CD_BIT if query.flags & dns.CD else 0
    if edns is not None and edns.do:
        mark |= DO_BIT
    if item.flags & QueryFlag.APEX:
        mark |= APEX_BIT
    tail = _TAIL.pack(mark, item.view_id, item.scope)
    if item.scope and edns is not None:  # the same length of two prefixes is not the same prefix (RFC 7871)
        return question + tail + edns.options.get(dns.EdnsOption.ECS, b"")
    return question + tail


def for_relay(key: bytes, question: bytes, flags: int) -> bytes:
    """The key under which a relayed flight is kept."""
    at = len(question)
    mark = RELAY_BIT | (LOOKUP_BIT if flags & QueryFlag.LOOKUP_ONLY else 0)
    return key[:at] + bytes((key[at] | mark,)) + key[at + 1 :]


def name_of(key: bytes) -> bytes:
    """The name, in key form, that a key begins with."""
    position = 0
    while size := key[position]:
        position += size + 1
    return key[: position + 1]
