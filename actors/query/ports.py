"""What the pipeline needs of others, as protocols: tests hand in fakes, ``actor.py`` hands in streams and Ray."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from raydns.schemas import wire
from raydns.schemas.batch import AnswerItem, QueryItem

from .budget import Budget
from .forward.forwarder import Owns, Result
from .forward.message import Question
from .forward.rules import Rule
from .forward.ttl import Lifetimes


class Zones(Protocol):
    """The way to the zone shards."""

    async def ask(self, shard: int, item: QueryItem) -> AnswerItem | None:
        """The shard's answer; ``None`` if it is away or did not answer in time."""


class Forwards(Protocol):
    """Forward rules and the forwarder."""

    lifetimes: Lifetimes

    def match(self, key: bytes) -> Rule | None:
        """The rule with the longest suffix of a name in key form."""

    async def resolve(self, rule: Rule, question: Question, budget: Budget, owns: Owns = None, view: int = 0) -> Result:
        """See ``Forwarder.resolve``."""


class Prompts(Protocol):
    """LLM names; ``llm_front.LLMFront``."""

    def in_zone(self, key: bytes) -> bool:
        """Whether a name is in an LLM zone."""

    def catches(self, query: wire.Query, item: QueryItem) -> bool:
        """Whether a name outside all zones is a prompt of a client that may ask."""

    async def answer(self, query: wire.Query, item: QueryItem) -> AnswerItem:
        """The answer to either."""


class Spans(Protocol):
    """What of ``nodes.tracing.Tracer`` is used here."""

    def new_span_id(self) -> bytes:
        """Eight random octets."""

    def record(
        self,
        name: str,
        *,
        kind: str,
        trace_id: bytes,
        span_id: bytes,
        parent_id: bytes,
        start_us: int,
        end_us: int,
        attributes: Mapping[str, Any],
        events: Sequence[tuple[str, int, Mapping[str, Any]]] = (),
        error: str = "",
    ) -> None:
        """Queues a span that has ended."""
