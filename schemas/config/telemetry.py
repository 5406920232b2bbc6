"""Sections ``telemetry`` and ``web``: logs, traces, and port 8053."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raydns.schemas.config.base import Section, SocketAddress


class LogConfig(Section):
    """Structured logs."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Of all loggers."""
    format: Literal["json", "text"] = "json"
    """json: one object a line; text: for a terminal."""


class TraceConfig(Section):
    """OpenTelemetry traces."""

    sample_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of queries with a trace."""
    otlp_endpoint: str = ""
    """Base URL of an OTLP/HTTP receiver such as http://127.0.0.1:4318; empty: spans go nowhere."""
    recent: Annotated[int, Field(ge=0, le=10_000)] = 256
    """Queries whose rooms the ingress remembers for the status page and ``raydns query --trace``."""


class TelemetryConfig(Section):
    """What raydns tells about itself."""

    log: LogConfig = LogConfig()
    """Logs."""
    trace: TraceConfig = TraceConfig()
    """Traces."""


class WebConfig(Section):
    """The HTTP service of a machine: /metrics, /health, /ready, /status and the status page."""

    listen: SocketAddress = "127.0.0.1:8053"
    """Where; loopback by default since it has no login yet."""
    enabled: bool = True
    """Whether it runs."""
