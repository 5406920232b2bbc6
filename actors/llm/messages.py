"""What travels between a query actor and the LLM actor: one request, one result, both msgpack.

This is the folder's public face; ``actors/query/llm_front`` imports it and nothing else from here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from raydns.schemas.batch import NO_SPAN, NO_TRACE
from raydns.schemas.errors import WireError

PROMPT_SIZE_MAX: Final = 1024
"""Characters of a prompt: a name has at most 253, and compatibility decomposition may lengthen them."""
WAIT_MS_MAX: Final = 60_000
_V4_MAPPED: Final = bytes(10) + b"\xff\xff"


class Kind(StrEnum):
    """What a result is; the name is also its series in ``raydns_llm_queries_total``."""

    ANSWER = "answer"  # whole text; may be kept for ``ttl`` seconds
    PARTIAL = "partial"  # the text so far: the call goes on (``final`` false), or was cut (``final`` true)
    PENDING = "pending"  # nothing yet; the call goes on
    LIMITED = "limited"  # this client may not make another call now: concerns nobody else
    QUOTA = "quota"  # all clients together may not
    VERIFY = "verify"  # an unproven source must come back by TCP before it may cost a call
    BUSY = "busy"  # too many calls in flight or waiting; ours to mend, never cached
    ERROR = "error"  # the provider or the embedded model failed


class AskRequest(msgspec.Struct, frozen=True, omit_defaults=True):
    """One prompt."""

    key: bytes  # sha256 of model alias, system prompt and prompt: who shares it shares one call
    prompt: str  # normalised
    client: bytes  # 16 octets, masked to /32 or /56: whose bucket a call is charged to
    wait_ms: int  # after that time a pending or partial result comes
    model: str = ""  # alias; empty: the configured list
    proven: bool = True  # the source address is real (TCP, cookie)
    trace_id: bytes = NO_TRACE
    span_id: bytes = NO_SPAN  # of the caller
    trace_flags: int = 0


class AskResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is to be told to the client."""

    kind: Kind
    text: str
    ttl: int  # seconds
    ede: int = -1  # Extended DNS Error (RFC 8914), -1 for none
    model: str = ""  # as the provider named it
    final: bool = True  # false: asking again may bring more
    source: str = "miss"  # hit, miss (led a call), joined, or refused
    provider: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token_ms: int = 0


_request_decoder = msgspec.msgpack.Decoder(AskRequest)
_result_decoder = msgspec.msgpack.Decoder(AskResult)
_encoder = msgspec.msgpack.Encoder()


def client_prefix(source: bytes) -> bytes:
    """The 16 octets whose bucket a source is charged to: an IPv4 address, or an IPv6 /56 (one household)."""
    if source.startswith(_V4_MAPPED) or len(source) != 16:
        return source.ljust(16, b"\0")[:16]
    return source[:7] + bytes(9)


def encode(message: AskRequest | AskResult) -> bytes:
    """The message as it crosses."""
    return _encoder.encode(message)


def decode_request(data: bytes) -> AskRequest:
    """Reads a request; raises ``WireError`` where it is malformed or exceeds a limit."""
    try:
        request = _request_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"not a request to the LLM actor: {error}") from error
    if not request.prompt or len(request.prompt) > PROMPT_SIZE_MAX or len(request.key) != 32:
        raise WireError("a request to the LLM actor needs a prompt of at most 1024 characters and a key of 32 octets")
    if len(request.client) != 16 or not 0 <= request.wait_ms <= WAIT_MS_MAX:
        raise WireError("a request to the LLM actor needs a client of 16 octets and at most a minute of patience")
    return request


def decode_result(data: bytes) -> AskResult:
    """Reads a result; raises ``WireError`` where it is malformed."""
    try:
        return _result_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireError(f"not a result of the LLM actor: {error}") from error
