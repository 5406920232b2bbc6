"""A plain DNS client of one question: builds it, asks over UDP or TCP, and reads the answer as text.

Knows nothing of the cluster; what it sends is what any client could send.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Any, Final

from raydns.schemas import dns as numbers
from raydns.schemas import names, wire
from raydns.schemas.errors import CommandError, MessageError, UnreachableError

OPTION_VERSION: Final = b"\x00"
SAMPLED: Final = b"\x01"
ATTEMPTS: Final = 2
_LENGTH: Final = struct.Struct("!H")


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace context that a question carries (W3C Trace Context in EDNS option 65500)."""

    trace_id: bytes
    span_id: bytes

    @property
    def option(self) -> bytes:
        """The EDNS option: version, trace id, span id, flags (sampled)."""
        return wire.option(numbers.EdnsOption.TRACE_CONTEXT, OPTION_VERSION + self.trace_id + self.span_id + SAMPLED)


def build(
    ident: int, name: bytes, qtype: int, *, trace: Trace | None = None, do: bool = False, rd: bool = True
) -> bytes:
    """One question with EDNS (RFC 6891)."""
    flags = numbers.RD if rd else 0
    header = struct.pack("!HHHHHH", ident, flags, 1, 0, 0, 1)
    question = name + struct.pack("!HH", qtype, numbers.Class.IN)
    return (
        header
        + question
        + wire.opt_record(udp_size=numbers.UDP_SIZE_DEFAULT, do=do, options=trace.option if trace else b"")
    )


def type_number(text: str) -> int:
    """``MX`` or ``TYPE65280`` (RFC 3597) as a number; raises ``CommandError``."""
    import dns.rdatatype
    from dns.exception import DNSException

    try:
        return int(dns.rdatatype.from_text(text))
    except (DNSException, ValueError):
        hint = "A, AAAA, MX, TXT, HTTPS, …; any other as TYPE and its number: TYPE65280"
        raise CommandError(f"{text!r} is not a record type", where="query", hint=hint) from None


def ask(address: str, port: int, message: bytes, *, tcp: bool, timeout_s: float) -> tuple[bytes, str]:
    """Sends the question and returns the answer and the transport that brought it; TC is followed over TCP.

    Raises:
        UnreachableError: nobody answered.
    """
    where = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
    try:
        answer = b"" if tcp else _ask_udp(address, port, message, timeout_s)
        if tcp or int.from_bytes(answer[2:4], "big") & numbers.TC:
            return _ask_tcp(address, port, message, timeout_s), "tcp"
    except TimeoutError as error:
        hint = "raydns status; a class may drop what this client asks"
        raise UnreachableError(f"no answer within {timeout_s:g} s", where=where, hint=hint) from error
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or "the connection was closed"
        raise UnreachableError(f"cannot be asked: {reason}", where=where, hint="raydns status") from error
    return answer, "udp"


def _ask_udp(address: str, port: int, message: bytes, timeout_s: float) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        client.settimeout(timeout_s / ATTEMPTS)
        for attempt in range(ATTEMPTS):
            client.send(message)
            try:
                while True:
                    answer = client.recv(numbers.MESSAGE_SIZE_MAX)
                    if len(answer) >= numbers.HEADER_SIZE and answer[:2] == message[:2] and answer[2] & 0x80:
                        return answer
            except TimeoutError:
                if attempt == ATTEMPTS - 1:
                    raise
    raise TimeoutError


def _ask_tcp(address: str, port: int, message: bytes, timeout_s: float) -> bytes:
    with socket.create_connection((address, port), timeout_s) as client:
        client.sendall(_LENGTH.pack(len(message)) + message)
        return _receive(client, _LENGTH.unpack(_receive(client, _LENGTH.size))[0])


def _receive(client: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = client.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def read(answer: bytes) -> dict[str, Any]:
    """The answer as plain values: rcode, flags, records of each section as text; raises ``MessageError``."""
    import dns.flags
    import dns.message
    import dns.rcode
    from dns.exception import DNSException

    try:
        found = dns.message.from_wire(answer)
    except (DNSException, ValueError, struct.error) as error:
        raise MessageError(f"the answer cannot be read: {error}", hint="dig shows its octets") from error
    sections = {"answer": found.answer, "authority": found.authority, "additional": found.additional}
    return {
        "rcode": dns.rcode.to_text(found.rcode()),
        "flags": dns.flags.to_text(found.flags).lower().split(),
        "errors": [option.to_text() for option in found.options if int(option.otype) == numbers.EdnsOption.EDE],
        "size": len(answer),
        **{
            name: [line for rrset in rrsets for line in rrset.to_text().split("\n")]
            for name, rrsets in sections.items()
        },
    }


def wire_name(text: str) -> bytes:
    """A name as a person types it, absolute; raises ``NameError_``."""
    return names.from_text(text)
