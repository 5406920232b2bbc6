"""Messages that the LLM pipeline answers with: whole, ID 0, question in key form, no OPT (design: cached answer).

A text is one TXT record of strings of at most 255 octets (RFC 1035 section 3.3.14): resolvers keep the order of
strings inside a record and shuffle records. No string splits a character, so that each is UTF-8 by itself.
"""

from __future__ import annotations

import struct
from typing import Final

import msgspec

from raydns.schemas import dns, wire

STRING_SIZE_MAX: Final = 255
MORE: Final = " ..."
_AT_QUESTION: Final = b"\xc0\x0c"


class Message(msgspec.Struct, frozen=True):
    """A message and its layout, as ``AnswerItem`` wants them."""

    data: bytes
    layout: bytes


class Record(msgspec.Struct, frozen=True):
    """One record; its owner as it is written, a pointer into the question."""

    rtype: int
    ttl: int
    rdata: bytes
    owner: bytes = _AT_QUESTION


def message(query: wire.Query, flags: int, answers: list[Record], authority: list[Record] | None = None) -> Message:
    """A response with these records.

    Args:
        query: what was asked.
        flags: AA, TC and the rcode; QR is added.
        answers: of the answer section.
        authority: of the authority section.
    """
    authority = authority or []
    header = struct.pack("!HHHHHH", 0, dns.QR | flags, 1, len(answers), len(authority), 0)
    question = query.key + struct.pack("!HH", query.qtype, query.qclass)
    records = b"".join(
        r.owner + struct.pack("!HHIH", r.rtype, dns.Class.IN, r.ttl, len(r.rdata)) + r.rdata
        for r in (*answers, *authority)
    )
    data = header + question + records
    return Message(data, wire.layout(data, dns.HEADER_SIZE + len(question)))


def text_message(query: wire.Query, text: str, ttl: int, *, aa: bool, size_max: int) -> Message:
    """A response whose one TXT record holds the text, cut to ``size_max`` octets."""
    return message(query, dns.AA if aa else 0, [Record(dns.Type.TXT, ttl, txt_rdata(cut(text, size_max)))])


def cut(text: str, size_max: int) -> str:
    """The text, or as much of it as fits with an ellipsis; never half a character."""
    data = text.encode("utf-8", "replace")
    if len(data) <= size_max:
        return data.decode("utf-8")
    return data[: size_max - len(MORE)].decode("utf-8", "ignore").rstrip() + MORE


def txt_rdata(text: str) -> bytes:
    """The RDATA of a TXT record; an empty text is one empty string, since a record needs one."""
    return b"".join(bytes((len(part),)) + part for part in strings(text.encode("utf-8", "replace"))) or b"\0"


def strings(data: bytes) -> list[bytes]:
    """The octets of a UTF-8 text in pieces of at most 255, none of which splits a character."""
    found: list[bytes] = []
    position = 0
    size = len(data)
    while position < size:
        end = min(position + STRING_SIZE_MAX, size)
        # An octet 10xxxxxx continues a character (RFC 3629); at most three of them follow each other.
        for _ in range(3):
            if end < size and data[end] & 0xC0 == 0x80:
                end -= 1
        found.append(data[position:end])
        position = end
    return found
