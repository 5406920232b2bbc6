"""The trailer of facts that travels with an answer, for decisions that must wait until it is known."""

from __future__ import annotations

import msgspec


class Facts(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """What policy may want to know of an answer without parsing it again; names in key form."""

    chain: tuple[bytes, ...] = ()  # owners of CNAME and DNAME met on the way
    addresses: tuple[bytes, ...] = ()  # 4 or 16 octets each
    name_servers: tuple[bytes, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Facts)


def encode(facts: Facts) -> bytes:
    """The facts as the batch carries them."""
    return _encoder.encode(facts)


def decode(data: bytes) -> Facts:
    """The facts of an answer; empty octets are no facts."""
    return _decoder.decode(data) if data else Facts()
