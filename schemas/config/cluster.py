"""Sections ``cluster`` and ``health``: Ray, this machine's place in the cluster, and who watches whom."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from raydns.schemas.config.base import Section


class ClusterConfig(Section):
    """Ray on this machine."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")] = "raydns"
    """Ray namespace of the actors."""
    head: bool = True
    """Whether this machine starts Ray's head; otherwise ``address`` names it."""
    address: str = ""
    """``HOST:PORT`` of the head for a machine that joins."""
    ray_port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Port of Ray's GCS on the head; 0: a free one, kept in the state directory."""
    node_address: str = "127.0.0.1"
    """Address at which this machine's Ray and streams are reached by others."""
    num_cpus: Annotated[int, Field(ge=0)] = 0
    """CPUs that Ray believes in; 0: as many as there are."""
    object_store_memory: Annotated[int, Field(ge=78643200)] = 100_000_000
    """Octets of Ray's object store on this machine."""
    virtual_nodes: Annotated[int, Field(ge=1, le=1024)] = 64
    """Points of one cache shard on the ring."""
    labels: dict[str, str] = {}
    """Placement labels of this machine, such as its region."""


class HealthConfig(Section):
    """The health monitor."""

    interval_s: Annotated[float, Field(gt=0)] = 1.0
    """Between two probes of the same actor."""
    timeout_s: Annotated[float, Field(gt=0)] = 2.0
    """Of one probe."""
    failures: Annotated[int, Field(ge=1)] = 3
    """Failures in a row (k) before the controller is told to replace it."""
