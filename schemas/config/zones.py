"""Section ``zones``: zones that are loaded from master files at start."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raydns.schemas.config.base import Domain, Section


class ZoneConfig(Section):
    """One zone."""

    name: Domain
    """Its apex."""
    file: str
    """Its master file (RFC 1035 section 5); relative to the configuration file."""


class ZonesConfig(Section):
    """Authoritative zones; ``raydns zone load`` adds more while it runs."""

    files: tuple[ZoneConfig, ...] = ()
    """Zones with master files."""
    shards: Annotated[int, Field(ge=1, le=64)] = 1
    """Zone shards in the cluster."""
