"""Section ``forward``: upstream servers, and which names go to which."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raydns.schemas.config.base import Domain, Section, SocketAddress


class UpstreamConfig(Section):
    """One upstream server, by address or by name."""

    address: str
    """``ADDRESS``, ``ADDRESS:PORT``, ``[IPV6]:PORT`` or a host name with ``:PORT`` (then ``bootstrap`` resolves it)."""
    transport: Literal["udp", "tcp"] = "udp"
    """udp falls back to tcp on truncation."""


class RuleConfig(Section):
    """Names below ``suffix`` go to ``upstreams``; the longest suffix wins."""

    suffix: Domain
    """``.`` is everything."""
    upstreams: Annotated[tuple[UpstreamConfig, ...], Field(min_length=1)]
    """Tried in the order of their measured speed, not of this list."""


class BreakerConfig(Section):
    """The circuit breaker of an upstream."""

    failures: Annotated[int, Field(ge=1)] = 5
    """Failures in a row, over several names, that open it."""
    slow_factor: Annotated[float, Field(gt=1)] = 3.0
    """An answer that takes this many times the usual time counts as slow; as many slow ones open it too."""
    open_s: Annotated[float, Field(gt=0)] = 5.0
    """How long it stays open at first; doubles with each failed probe."""
    open_max_s: Annotated[float, Field(gt=0)] = 60.0
    """Its upper bound."""


class ForwardConfig(Section):
    """Forwarding."""

    rules: tuple[RuleConfig, ...] = ()
    """Forward rules; none: nothing is forwarded."""
    bootstrap: tuple[SocketAddress, ...] = ()
    """Resolvers for upstreams given by name; empty: the system's (/etc/resolv.conf)."""
    timeout_s: Annotated[float, Field(ge=1, le=30)] = 5.0
    """Time for one client query over all retries."""
    attempts: Annotated[int, Field(ge=1, le=10)] = 4
    """Exchanges for one client query."""
    backoff_ms: Annotated[int, Field(ge=1)] = 50
    """Pause before the second attempt; doubles, with jitter."""
    port_min: Annotated[int, Field(ge=1024, le=65535)] = 10_000
    """Range of local ports; each exchange takes a random one (RFC 5452)."""
    port_max: Annotated[int, Field(ge=1024, le=65535)] = 65_000
    """Its end."""
    sockets: Annotated[int, Field(ge=1, le=1000)] = 32
    """Connected UDP sockets kept an upstream and query actor."""
    case_randomization: bool = True
    """0x20: random case in questions, checked in replies; turned off for a server that changes case."""
    breaker: BreakerConfig = BreakerConfig()
    """Circuit breaker of every upstream."""
