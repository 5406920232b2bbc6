"""Names that every server answers by itself: locally served zones, special-use names, and what CHAOS asks.

RFC 6303 (and its IANA registry: RFC 7793, 8375, 9665), RFC 6761 (localhost, invalid, test), RFC 6762 (local),
RFC 7686 (onion), RFC 9462 section 6.4 (resolver.arpa). A configured zone, a forward rule or an LLM zone at or below
one of them, and covering the name, wins. These answers are for clients that may resolve here; CHAOS is for all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final

from raydns.schemas import dns, names, wire
from raydns.schemas.config.server import ServerConfig
from raydns.schemas.wire import Query

from .render import Stored

TTL_S: Final = 10800  # RFC 6303 section 3
_HEALTH: Final = names.from_text("health.raydns.")
_LOCALHOST: Final = names.from_text("localhost.")
_SOA_TIMES: Final = struct.pack("!IIIII", 1, 3600, 1200, 604800, TTL_S)  # RFC 6303 section 3
_NOBODY: Final = names.from_text("nobody.invalid.")

_EMPTY_TEXT: Final = (
    # RFC 6303 section 4.1 and 4.2, RFC 7793
    "10.in-addr.arpa.",
    *(f"{n}.172.in-addr.arpa." for n in range(16, 32)),
    "168.192.in-addr.arpa.",
    "0.in-addr.arpa.",
    "127.in-addr.arpa.",
    "254.169.in-addr.arpa.",
    "2.0.192.in-addr.arpa.",
    "100.51.198.in-addr.arpa.",
    "113.0.203.in-addr.arpa.",
    "255.255.255.255.in-addr.arpa.",
    *(f"{n}.100.in-addr.arpa." for n in range(64, 128)),
    # RFC 6303 sections 4.3 to 4.6
    "0." * 32 + "ip6.arpa.",
    "1." + "0." * 31 + "ip6.arpa.",
    "d.f.ip6.arpa.",
    *(f"{n}.e.f.ip6.arpa." for n in "89ab"),
    "8.b.d.0.1.0.0.2.ip6.arpa.",
    # RFC 8375 section 4, RFC 9665 section 10.2
    "home.arpa.",
    "service.arpa.",
    # RFC 6761 sections 6.2 and 6.4, RFC 6762 section 22.1, RFC 7686 section 2
    "test.",
    "invalid.",
    "local.",
    "onion.",
)
_NO_DATA_TEXT: Final = ("resolver.arpa.",)  # RFC 9462 section 6.4: the names exist, they just hold nothing

_EMPTY: Final = frozenset(names.from_text(text) for text in _EMPTY_TEXT)
_NO_DATA: Final = frozenset(names.from_text(text) for text in _NO_DATA_TEXT)
_SPECIAL: Final = _EMPTY | _NO_DATA | {_LOCALHOST}
_ENDINGS: Final = tuple(
    names.from_text(text) for text in ("arpa.", "localhost.", "test.", "invalid.", "local.", "onion.")
)

_POINTERS: Final = {
    names.from_text("1.0.0.127.in-addr.arpa."): _LOCALHOST,
    names.from_text("1." + "0." * 31 + "ip6.arpa."): _LOCALHOST,
}
_LOOPBACK: Final = {dns.Type.A: b"\x7f\x00\x00\x01", dns.Type.AAAA: bytes(15) + b"\x01"}

Record = tuple[bytes, int, int, bytes]
"""Owner (as it is written: may be a pointer), type, TTL, data."""
_AT_QUESTION: Final = b"\xc0\x0c"


class SpecialNames:
    """The answers of one configuration."""

    def __init__(self, overrides: Iterable[bytes] = ()) -> None:
        """Takes the names (key form) of zones, forward rules and LLM zones that were configured."""
        self._overrides = frozenset(name for name in overrides if name.endswith(_ENDINGS))

    def find(self, query: Query) -> Stored | None:
        """The answer to a query of class IN, or ``None`` for any other name."""
        key = query.key
        if not key.endswith(_ENDINGS):  # nearly every query ends here
            return None
        for ancestor in names.ancestors(key):
            if ancestor in self._overrides:
                return None
            if ancestor in _SPECIAL:
                return _answer(query, ancestor)
        return None


def _answer(query: Query, apex: bytes) -> Stored:
    key, qtype = query.key, query.qtype
    answers: list[Record] = []
    exists = key == apex or apex in _NO_DATA
    if apex == _LOCALHOST:
        # RFC 6761 section 6.3: localhost and every name below it is the loopback address, and has nothing else.
        exists = True
        answers += [
            (_AT_QUESTION, rtype, TTL_S, address)
            for rtype, address in _LOOPBACK.items()
            if qtype in (rtype, dns.Type.ANY)
        ]
    elif key in _POINTERS:
        exists = True
        if qtype in (dns.Type.PTR, dns.Type.ANY):
            answers.append((_AT_QUESTION, dns.Type.PTR, TTL_S, _POINTERS[key]))
    elif any(known.endswith(key) and names.is_subdomain(known, key) for known in _POINTERS):
        exists = True  # an empty non-terminal above a name that exists (RFC 8020)
    if key == apex and apex != _LOCALHOST:
        if qtype in (dns.Type.SOA, dns.Type.ANY):
            answers.append(_soa(query, apex))
        if qtype in (dns.Type.NS, dns.Type.ANY):
            answers.append((_AT_QUESTION, dns.Type.NS, TTL_S, apex))
    authority = [] if answers else [_soa(query, apex)]
    flags = dns.AA if exists else dns.AA | dns.Rcode.NXDOMAIN
    return build(query, flags, answers, authority)


def _soa(query: Query, apex: bytes) -> Record:
    # The apex is a tail of the question's name: a pointer into it (RFC 1035 section 4.1.4).
    pointer = struct.pack("!H", 0xC000 | (dns.HEADER_SIZE + len(query.key) - len(apex)))
    return pointer, dns.Type.SOA, TTL_S, pointer + _NOBODY + _SOA_TIMES


def build(query: Query, flags: int, answers: list[Record], authority: list[Record], rclass: int = 1) -> Stored:
    """A stored answer from a few records."""
    body = b"".join(
        owner + struct.pack("!HHIH", rtype, rclass, ttl, len(data)) + data
        for owner, rtype, ttl, data in (*answers, *authority)
    )
    header = struct.pack("!HHHHHH", 0, dns.QR | flags, 1, len(answers), len(authority), 0)
    question = query.key + struct.pack("!HH", query.qtype, query.qclass)
    message = header + question + body
    return Stored.of(message, wire.layout(message, query.question_end), query.question_end)


class Chaos:
    """Answers of class CH: who this server is, as far as the configuration tells (RFC 4892)."""

    def __init__(self, server: ServerConfig) -> None:
        self._texts = {_HEALTH: "ingress"}
        for text, value in (
            ("id.server.", server.nsid),
            ("hostname.bind.", server.nsid),
            ("version.server.", server.version),
            ("version.bind.", server.version),
        ):
            if value:
                self._texts[names.from_text(text)] = value

    def find(self, query: Query) -> Stored | None:
        """The answer, or ``None``: then it is REFUSED."""
        text = self._texts.get(query.key)
        if text is None:
            return None
        if query.qtype not in (dns.Type.TXT, dns.Type.ANY):
            return build(query, dns.AA, [], [], dns.Class.CH)
        data = text.encode()[:255]
        return build(query, dns.AA, [(_AT_QUESTION, dns.Type.TXT, 0, bytes((len(data),)) + data)], [], dns.Class.CH)
