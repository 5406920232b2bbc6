"""The configuration: frozen pydantic models, one file a section, and the way from files and environment to them.

Owns the shape and the meaning of every option. ``load`` is the only way in; it never half-applies anything.
"""

from __future__ import annotations

from raydns.schemas.config.access import AccessConfig
from raydns.schemas.config.base import Section
from raydns.schemas.config.cache import CacheConfig
from raydns.schemas.config.cluster import ClusterConfig, HealthConfig
from raydns.schemas.config.forward import ForwardConfig
from raydns.schemas.config.llm import LLMConfig
from raydns.schemas.config.query import QueryConfig
from raydns.schemas.config.server import ServerConfig
from raydns.schemas.config.telemetry import TelemetryConfig, WebConfig
from raydns.schemas.config.zones import ZonesConfig

__all__ = ["Config"]


class Config(Section):
    """The whole configuration of a cluster and of the machine that reads it."""

    version: int = 1
    """Of this format; older ones are migrated."""
    server: ServerConfig = ServerConfig()
    """The DNS service of a machine."""
    access: AccessConfig = AccessConfig()
    """Client classes, rights, rate limits."""
    cache: CacheConfig = CacheConfig()
    """Cache tiers."""
    forward: ForwardConfig = ForwardConfig()
    """Upstreams and forward rules."""
    query: QueryConfig = QueryConfig()
    """The pool of query actors."""
    zones: ZonesConfig = ZonesConfig()
    """Authoritative zones."""
    llm: LLMConfig = LLMConfig()
    """LLM over DNS."""
    cluster: ClusterConfig = ClusterConfig()
    """Ray."""
    health: HealthConfig = HealthConfig()
    """The health monitor."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """Logs and traces."""
    web: WebConfig = WebConfig()
    """The HTTP service."""
