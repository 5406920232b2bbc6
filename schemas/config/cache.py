"""Section ``cache``: answers kept in the ingress (L1) and in the cache shards (L2)."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raydns.schemas.config.base import Section


class CacheConfig(Section):
    """Sizes and times of the cache tiers."""

    enabled: bool = True
    """Whether answers are kept at all; single flight works without."""
    shards: Annotated[int, Field(ge=1, le=64)] = 1
    """Cache shards a machine."""
    l1_bytes: Annotated[int, Field(ge=65536)] = 32 * 1024 * 1024
    """Bound of the ingress's own answers, octets of messages and keys and overhead."""
    l2_bytes: Annotated[int, Field(ge=65536)] = 128 * 1024 * 1024
    """Bound of one shard."""
    ttl_min_s: Annotated[int, Field(ge=0, le=3600)] = 0
    """Lower bound of a cached TTL, seconds. TTL 0 serves those who wait, then goes."""
    ttl_max_s: Annotated[int, Field(ge=1, le=604800)] = 86400
    """Upper bound of a cached TTL."""
    negative_ttl_max_s: Annotated[int, Field(ge=0, le=86400)] = 3600
    """Upper bound of a negative answer's TTL (RFC 2308 section 5)."""
    failure_ttl_s: Annotated[float, Field(ge=1, le=300)] = 5.0
    """How long a failure is remembered (RFC 9520); doubles with each further one."""
    failure_ttl_max_s: Annotated[float, Field(ge=1, le=300)] = 300.0
    """Its upper bound."""
    stale: bool = True
    """Whether expired answers serve when nothing above answers (RFC 8767)."""
    stale_ttl_s: Annotated[int, Field(ge=1, le=300)] = 30
    """TTL of a stale answer."""
    stale_max_s: Annotated[int, Field(ge=0, le=604800)] = 86400
    """How long after its expiry an answer may still be served."""
    stale_wait_ms: Annotated[int, Field(ge=0)] = 1800
    """How long a client waits for a fresh answer before it gets a stale one."""
    stale_retry_s: Annotated[float, Field(ge=1)] = 30.0
    """How long a stale answer is given at once before a fresh one is tried again."""
    prefetch_hits: Annotated[int, Field(ge=0)] = 3
    """Hits in a lifetime from which an answer is fetched anew in its last tenth; 0: never."""
    waiters_max: Annotated[int, Field(ge=1)] = 10_000
    """Queries that one flight may have waiting in a shard."""
