"""Section ``access``: client classes, who may do what, and rate limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raydns.schemas.config.base import Prefix, Section

Mode = Literal["off", "shadow", "enforce"]
"""Whether a limit is ignored, only counted, or applied."""
RightName = Literal["cache", "recurse", "forward", "catch_all", "llm", "update", "transfer", "trace"]

PRIVATE: tuple[str, ...] = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "::1/128",
    "fe80::/10",
    "fc00::/7",
)


class ClassConfig(Section):
    """A client class: the longest prefix over all classes decides which one a source belongs to."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
    """Its name in metrics and logs."""
    prefixes: tuple[Prefix, ...]
    """Sources that belong to it."""
    rights: tuple[RightName, ...] = ()
    """What its clients may do beside asking for zones served here."""
    action: Literal["allow", "refuse", "drop"] = "allow"
    """What happens to all its queries: the access list."""
    on_link: bool = False
    """Whether the prefixes of this machine's own interfaces belong to it as well."""
    queries_per_second: Annotated[float, Field(ge=0)] = 0.0
    """Token bucket a client address; 0: the default of ``rate``."""


class RateConfig(Section):
    """Token bucket a client, checked before anything is looked up."""

    mode: Mode = "enforce"
    """off, shadow (counted only) or enforce."""
    queries_per_second: Annotated[float, Field(gt=0)] = 1000.0
    """Sustained rate of one client address (IPv6: one /64)."""
    burst: Annotated[int, Field(ge=1)] = 2000
    """Queries it may send at once."""
    clients_max: Annotated[int, Field(ge=1024)] = 65536
    """Buckets kept; the least recently used go first."""
    exempt_loopback: bool = True
    """Whether 127.0.0.0/8 and ::1 are never limited."""


class AccessConfig(Section):
    """Who is who, and what each may do."""

    classes: tuple[ClassConfig, ...] = (
        ClassConfig(
            name="local",
            prefixes=PRIVATE,
            rights=("cache", "recurse", "forward", "catch_all", "llm", "trace"),
            on_link=True,
        ),
        ClassConfig(name="internet", prefixes=("0.0.0.0/0", "::/0"), rights=("llm",)),
    )
    """Classes; ids follow their order and are stable as long as names keep their place."""
    rate: RateConfig = RateConfig()
    """The limit a client."""
