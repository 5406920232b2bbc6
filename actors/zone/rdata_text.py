r"""RDATA from its presentation format: the usual types by hand, every other one by dnspython.

By hand means 1–2 µs instead of 20–60, and errors that name the token. dnspython knows the grammar of the rest and is
exact there; two of its habits are turned off: names stay as written (no IDNA, RFC 3597 leaves octets alone), and
whatever it raises becomes a ``RdataProblem``. RFC 3597's ``\#`` is taken for every type and checked by dnspython
where the type is known.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from socket import AF_INET, AF_INET6, inet_pton
from typing import Final

import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from raydns.schemas.dns import Type
from raydns.schemas.errors import NameError_

RDATA_SIZE_MAX: Final = 65535
_TTL_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_TTL: Final = re.compile(r"(?:\d+[smhdw])*\d*", re.IGNORECASE | re.ASCII)
_TTL_PART: Final = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE | re.ASCII)
TTL_MAX: Final = 0x7FFFFFFF  # RFC 2181 section 8

ReadName = Callable[[str], bytes]
"""A name relative to the origin, in wire form; raises ``NameError_``."""


class RdataProblem(Exception):
    """What is wrong with which token of the RDATA (counted from its first)."""

    def __init__(self, index: int, message: str, expected: str = "") -> None:
        super().__init__(message)
        self.index = index
        self.message = message
        self.expected = expected


def read_ttl(text: str) -> int | None:
    """A TTL in seconds, or with units as in ``1h30m``; ``None`` if it is none."""
    if text.isdecimal() and text.isascii():
        return int(text) if len(text) <= 10 and int(text) <= TTL_MAX else None
    if not text[:1].isdecimal() or not _TTL.fullmatch(text) or len(text) > 40:
        return None
    total = sum(int(number) * _TTL_UNITS[unit.lower() or "s"] for number, unit in _TTL_PART.findall(text))
    return total if total <= TTL_MAX else None


def read_rdata(rtype: int, tokens: list[str], read_name: ReadName, origin: bytes) -> bytes:
    """The RDATA in wire form, names uncompressed and as written.

    Raises:
        RdataProblem: it is not what the type asks for.
    """
    if not tokens:
        raise RdataProblem(0, "no data", "the record's data")
    if tokens[0] == "\\#":
        return _generic(rtype, tokens)
    reader = _READERS.get(rtype)
    rdata = reader(tokens, read_name) if reader is not None else _by_dnspython(rtype, tokens, origin)
    if len(rdata) > RDATA_SIZE_MAX:
        raise RdataProblem(0, f"{len(rdata)} octets of data", f"at most {RDATA_SIZE_MAX}")
    return rdata


def _count(tokens: list[str], count: int, what: str) -> None:
    if len(tokens) != count:
        problem = "too few fields" if len(tokens) < count else "too many fields"
        raise RdataProblem(min(len(tokens), count), problem, what)


def _name(tokens: list[str], index: int, read_name: ReadName) -> bytes:
    try:
        return read_name(tokens[index])
    except NameError_ as error:
        raise RdataProblem(index, error.message, error.hint or "a domain name") from None


def _number(tokens: list[str], index: int, most: int) -> int:
    text = tokens[index]
    if not (text.isdecimal() and text.isascii()) or len(text) > 10 or int(text) > most:
        raise RdataProblem(index, "not a number in range", f"0 to {most}")
    return int(text)


def _seconds(tokens: list[str], index: int) -> bytes:
    if tokens[index].isdecimal():
        return _number(tokens, index, 0xFFFFFFFF).to_bytes(4, "big")
    value = read_ttl(tokens[index])
    if value is None:
        raise RdataProblem(index, "not a time", "seconds, or units as in 1h30m")
    return value.to_bytes(4, "big")


def _address4(tokens: list[str], read_name: ReadName) -> bytes:
    _count(tokens, 1, "one IPv4 address")
    try:
        return inet_pton(AF_INET, tokens[0])
    except (OSError, ValueError):
        raise RdataProblem(0, "not an IPv4 address", "four numbers as in 192.0.2.1") from None


def _address6(tokens: list[str], read_name: ReadName) -> bytes:
    _count(tokens, 1, "one IPv6 address")
    try:
        return inet_pton(AF_INET6, tokens[0])
    except (OSError, ValueError):
        raise RdataProblem(0, "not an IPv6 address", "an address as in 2001:db8::1") from None


def _one_name(tokens: list[str], read_name: ReadName) -> bytes:
    _count(tokens, 1, "one domain name")
    return _name(tokens, 0, read_name)


def _mx(tokens: list[str], read_name: ReadName) -> bytes:
    _count(tokens, 2, "preference and name")
    return _number(tokens, 0, 65535).to_bytes(2, "big") + _name(tokens, 1, read_name)


def _srv(tokens: list[str], read_name: ReadName) -> bytes:
    _count(tokens, 4, "priority, weight, port and name")
    return b"".join(_number(tokens, i, 65535).to_bytes(2, "big") for i in range(3)) + _name(tokens, 3, read_name)


def _soa(tokens: list[str], read_name: ReadName) -> bytes:
    _count(tokens, 7, "primary, mailbox, serial, refresh, retry, expire and minimum")
    serial = _number(tokens, 2, 0xFFFFFFFF).to_bytes(4, "big")
    times = b"".join(_seconds(tokens, index) for index in range(3, 7))
    return _name(tokens, 0, read_name) + _name(tokens, 1, read_name) + serial + times


def _txt(tokens: list[str], read_name: ReadName) -> bytes:
    return b"".join(character_string(token, index) for index, token in enumerate(tokens))


def character_string(token: str, index: int) -> bytes:
    r"""One character-string with its length octet; escapes as in RFC 1035 section 5.1."""
    text = token[1:-1] if token.startswith('"') else token
    raw = text.encode("utf-8", "surrogateescape")
    if b"\\" in raw:
        raw = _unescape(raw, index)
    if len(raw) > 255:
        raise RdataProblem(index, f"a string of {len(raw)} octets", "at most 255; split it into several strings")
    return bytes((len(raw),)) + raw


def _unescape(raw: bytes, index: int) -> bytes:
    out = bytearray()
    at = 0
    while at < len(raw):
        octet = raw[at]
        if octet != 0x5C:
            out.append(octet)
            at += 1
            continue
        digits = raw[at + 1 : at + 4]
        if digits[:1].isdigit():
            if len(digits) < 3 or not digits.isdigit() or int(digits) > 255:
                raise RdataProblem(index, "a bad escape", "\\DDD with three digits up to 255")
            out.append(int(digits))
            at += 4
        else:
            out += raw[at + 1 : at + 2]
            at += 2
    return bytes(out)


def _generic(rtype: int, tokens: list[str]) -> bytes:
    if len(tokens) < 2:
        raise RdataProblem(1, "no length", "\\# LENGTH HEX… (RFC 3597 section 5)")
    length = _number(tokens, 1, RDATA_SIZE_MAX)
    digits = "".join(tokens[2:])
    try:
        data = bytes.fromhex(digits)
    except ValueError:
        raise RdataProblem(2, "not hexadecimal", "pairs of hexadecimal digits") from None
    if len(data) != length or not digits.isascii():
        raise RdataProblem(1, f"{len(data)} octets of data where the length says {length}", "the two to agree")
    try:
        return dns.rdata.from_wire(dns.rdataclass.IN, _type(rtype), data, 0, length).to_wire() or b""
    except Exception as error:  # dnspython raises whatever its parts raise
        raise RdataProblem(2, f"no {dns.rdatatype.to_text(_type(rtype))} data: {_reason(error)}", "") from error


class _AsWritten(dns.name.IDNACodec):
    """Non-ASCII characters in names are their UTF-8 octets, as in ``schemas.names``."""

    def encode(self, label: str) -> bytes:
        return label.encode("utf-8", "surrogateescape")


_AS_WRITTEN: Final = _AsWritten()  # type: ignore[no-untyped-call]


def _by_dnspython(rtype: int, tokens: list[str], origin: bytes) -> bytes:
    try:
        base = dns.name.from_wire(origin, 0)[0]
        rdata = dns.rdata.from_text(
            dns.rdataclass.IN, _type(rtype), " ".join(tokens), base, relativize=False, idna_codec=_AS_WRITTEN
        )
        return rdata.to_wire() or b""
    except Exception as error:  # dnspython raises whatever its parts raise
        raise RdataProblem(0, _reason(error), f"data of type {dns.rdatatype.to_text(_type(rtype))}") from error


def _type(rtype: int) -> dns.rdatatype.RdataType:
    return dns.rdatatype.RdataType.make(rtype)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.removeprefix("near '',").removeprefix("<string>:1: ").strip() or type(error).__name__


_READERS: Final[dict[int, Callable[[list[str], ReadName], bytes]]] = {
    int(Type.A): _address4,
    int(Type.AAAA): _address6,
    int(Type.NS): _one_name,
    int(Type.CNAME): _one_name,
    int(Type.PTR): _one_name,
    int(Type.DNAME): _one_name,
    int(Type.MX): _mx,
    int(Type.SRV): _srv,
    int(Type.SOA): _soa,
    int(Type.TXT): _txt,
    99: _txt,  # SPF (RFC 7208 section 3.1)
}
