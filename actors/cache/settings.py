"""What of the configuration the shard needs, as plain attributes: a pydantic model is too slow to ask per query."""

from __future__ import annotations

from dataclasses import dataclass

from raydns.schemas.config import Config


@dataclass(frozen=True, slots=True)
class Settings:
    """Times in seconds, sizes in octets; made anew whenever the configuration changes."""

    enabled: bool = True
    bytes_max: int = 128 * 1024 * 1024
    ttl_min: int = 0
    ttl_max: int = 86400
    negative_ttl_max: int = 3600
    failure_ttl: float = 5.0
    failure_ttl_max: float = 300.0
    stale_ttl: int = 30
    stale_max: int = 86400
    """0 where stale answers are turned off."""
    stale_wait: float = 1.8
    stale_retry: float = 30.0
    prefetch_hits: int = 3
    waiters_max: int = 10_000
    in_flight_max: int = 1000
    flight: float = 7.0
    """How long the query actor may take: a flight's own deadline, whatever was left of its leader's."""
    budget_queries: int = 128
    budget_octets: int = 100_000
    budget_cnames: int = 11

    @classmethod
    def of(cls, config: Config) -> Settings:
        """The settings that a configuration stands for."""
        cache, query = config.cache, config.query
        return cls(
            enabled=cache.enabled,
            bytes_max=cache.l2_bytes,
            ttl_min=min(cache.ttl_min_s, cache.ttl_max_s),
            ttl_max=cache.ttl_max_s,
            negative_ttl_max=cache.negative_ttl_max_s,
            failure_ttl=cache.failure_ttl_s,
            failure_ttl_max=max(cache.failure_ttl_s, cache.failure_ttl_max_s),
            stale_ttl=cache.stale_ttl_s,
            stale_max=cache.stale_max_s if cache.stale else 0,
            stale_wait=cache.stale_wait_ms / 1000,
            stale_retry=cache.stale_retry_s,
            prefetch_hits=cache.prefetch_hits,
            waiters_max=cache.waiters_max,
            in_flight_max=query.in_flight_max,
            flight=max(config.server.query_timeout_s, config.forward.timeout_s),
            budget_queries=query.budget.upstream_queries,
            budget_octets=query.budget.octets,
            budget_cnames=query.budget.cname_steps,
        )
