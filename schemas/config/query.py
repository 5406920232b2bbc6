"""Section ``query``: the pool of query actors."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from raydns.schemas.config.base import Section


class BudgetConfig(Section):
    """What one client query may cost (design: rule 3)."""

    upstream_queries: Annotated[int, Field(ge=1, le=1000)] = 128
    """Exchanges in all."""
    octets: Annotated[int, Field(ge=1000)] = 100_000
    """Octets received in all."""
    cname_steps: Annotated[int, Field(ge=1, le=32)] = 11
    """CNAME and DNAME steps."""


class QueryConfig(Section):
    """The pool."""

    pool_size: Annotated[int, Field(ge=1, le=1000)] = 2
    """Query actors at start."""
    pool_min: Annotated[int, Field(ge=1, le=1000)] = 1
    """The autoscaler goes no lower."""
    pool_max: Annotated[int, Field(ge=1, le=1000)] = 8
    """The autoscaler, and ``raydns scale``, go no higher."""
    autoscale: bool = True
    """Whether load changes the size."""
    target_in_flight: Annotated[float, Field(gt=0)] = 200.0
    """Queries in flight an actor above which the pool grows."""
    up_after_s: Annotated[float, Field(gt=0)] = 5.0
    """How long the load must be above target."""
    down_after_s: Annotated[float, Field(gt=0)] = 120.0
    """How long it must be below half of it."""
    in_flight_max: Annotated[int, Field(ge=1)] = 1000
    """Queries one actor takes at once; beyond it SERVFAIL with EDE, at once."""
    budget: BudgetConfig = BudgetConfig()
    """The budget of one client query."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if not self.pool_min <= self.pool_size <= self.pool_max:
            raise ValueError(
                f"pool_size {self.pool_size} is not between pool_min {self.pool_min} and pool_max {self.pool_max}"
            )
        return self
