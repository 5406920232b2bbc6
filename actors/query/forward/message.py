"""The question that goes to an upstream: what it asks, and the octets that ask it (RFC 1035, 5452, 6891).

An upstream query starts with two octets that the socket fills in (the ID, chosen where it can be unique), then
flags, one question in random case (0x20) and OPT. Randomness comes in as an argument.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final

import msgspec

from raydns.schemas import dns

_HEADER_REST: Final = struct.Struct("!HHHHH")
_TYPE_CLASS: Final = struct.Struct("!HH")
# Length octets are at most 63 and so below "a": translating the whole wire name touches letters only.
_LETTERS: Final = bytes(0x20 if 0x61 <= octet <= 0x7A else 0 for octet in range(256))


class Question(msgspec.Struct, frozen=True, gc=False):
    """What is asked; equal questions get equal answers, and share one flight."""

    key: bytes  # name in key form
    qtype: int
    qclass: int = 1
    do: bool = False  # DNSSEC records wanted (RFC 3225)
    cd: bool = False  # checking disabled (RFC 4035 section 3.2.2)


class Sent(msgspec.Struct, frozen=True, gc=False):
    """A query as it left: what its reply is checked against."""

    question: Question
    body: bytes  # the message without its ID
    asked: bytes  # the question section as sent, random case included
    edns: bool

    @property
    def case_random(self) -> bool:
        """Whether the case of the name is a proof that a reply must bring back."""
        return self.asked[: len(self.question.key)] != self.question.key


def randomise_case(key: bytes, random_octets: Callable[[int], bytes]) -> bytes:
    """The name with each letter in a random case (0x20, draft-vixie-dnsext-dns0x20)."""
    size = len(key)
    flips = int.from_bytes(random_octets(size), "big") & int.from_bytes(key.translate(_LETTERS), "big")
    return (int.from_bytes(key, "big") ^ flips).to_bytes(size, "big")


def build(
    question: Question,
    random_octets: Callable[[int], bytes],
    *,
    case_random: bool = True,
    edns: bool = True,
    udp_size: int = dns.UDP_SIZE_DEFAULT,
    options: bytes = b"",
) -> Sent:
    """An upstream query: RD set, one question, OPT with DO as the client asked.

    Args:
        question: what to ask.
        random_octets: a secure source, such as ``secrets.token_bytes``.
        case_random: off for servers that change case.
        edns: off for servers that fail on OPT (RFC 6891 section 7).
        udp_size: what OPT announces.
        options: encoded EDNS options for it.
    """
    name = randomise_case(question.key, random_octets) if case_random else question.key
    asked = name + _TYPE_CLASS.pack(question.qtype, question.qclass)
    flags = dns.RD | (dns.CD if question.cd else 0)
    if not edns:
        return Sent(question, _HEADER_REST.pack(flags, 1, 0, 0, 0) + asked, asked, False)
    opt = dns_opt(udp_size, question.do, options)
    return Sent(question, _HEADER_REST.pack(flags, 1, 0, 0, 1) + asked + opt, asked, True)


def dns_opt(udp_size: int, do: bool, options: bytes = b"") -> bytes:
    """The OPT record of an upstream query: none of the client's options, so that no client subnet leaks."""
    return (
        b"\x00\x00\x29"
        + udp_size.to_bytes(2, "big")
        + (b"\x00\x00\x80\x00" if do else b"\x00\x00\x00\x00")
        + len(options).to_bytes(2, "big")
        + options
    )
