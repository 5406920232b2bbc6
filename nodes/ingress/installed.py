"""What is installed: every table that is made from one ``MachineState``, swapped as a whole."""

from __future__ import annotations

from typing import Final

from raydns.nodes.images import Image, ZoneTable
from raydns.nodes.images.table import retired
from raydns.schemas import dns, loops
from raydns.schemas.batch import Right
from raydns.schemas.cluster import FlushTable
from raydns.schemas.wire import Query

from .admission import Admission, Client
from .counters import Counters
from .engine import MachineState, Refusal
from .misses import Limits
from .odd import Odd
from .policy import ASK_ABOVE, NamePolicy
from .render import Renderer, Stored
from .special import SpecialNames

ZONE_ANSWERS_MAX: Final = 8192

ZoneHit = tuple[Stored, bool]
"""A zone's answer, and whether its chain of CNAMEs leads out of what is held here."""


class Installed:
    """One state, ready to answer from."""

    def __init__(self, state: MachineState, counters: Counters, previous: Installed | None = None) -> None:
        config = state.config
        self.state = state
        self.config = config
        before = (previous.admission, previous.zones) if previous is not None else (None, None)
        self.admission: Admission = Admission(config.access, state.interface_prefixes, before[0])
        self.zones: ZoneTable = ZoneTable(state.zones, state.images, previous=before[1])
        self.zone_answers: dict[tuple[bytes, int, int], ZoneHit] = {}
        """Rendered once and dropped with this state, as the images' own are: no tier of a cache."""
        self.policy = NamePolicy(config)
        self.renderer = Renderer(config.server)
        self.odd = Odd(config.server, self.renderer, counters)
        self.special = SpecialNames(
            [*(entry.apex for entry in state.zones), *self.policy.forward_suffixes, *self.policy.llm_zones]
        )
        self.flushes = FlushTable(list(state.flushes))
        self.loop_token = loops.token(state.ring.seed)
        self.parsed: dict[bytes, Query] = {}
        """Queries by their octets behind the ID: the same question is parsed once. Nobody here reads ``Query.id``."""
        self.timeout_s = config.server.query_timeout_s
        self.stale = config.cache.stale and config.cache.enabled
        self.stale_wait_s = config.cache.stale_wait_ms / 1000
        self.prefetch_hits = config.cache.prefetch_hits or 1 << 60

    @property
    def versions(self) -> tuple[int, int, int]:
        """Of class table, ring and state, as items carry them."""
        return self.state.class_version, self.state.ring.version, self.state.version

    @property
    def limits(self) -> Limits:
        """Bounds for those who wait."""
        server = self.config.server
        return Limits(
            server.max_concurrent_queries,
            server.waiters_per_name_max,
            server.waiters_per_prefix_max,
            self.timeout_s,
            self.config.access.rate.exempt_loopback,
        )

    @property
    def refusals(self) -> list[Refusal]:
        """Images that are not served, and why."""
        return [Refusal(refused.apex, refused.sha256, refused.problem) for refused in self.zones.refusals]

    @staticmethod
    def ra(client: Client) -> int:
        """``dns.RA`` where a client may have something resolved here."""
        return dns.RA if client.klass.rights & ASK_ABOVE else 0

    def apex(self, query: Query, client: Client) -> ZoneHit | bool | None:
        """Who is authoritative for a name here.

        Returns:
            A zone's answer; ``True``: an apex of ours that must be asked above; ``False``: one that this client may
            not ask; ``None``: no apex is above the name.
        """
        view = client.klass.view
        entry = self.zones.find(query.key, query.qtype, view)
        llm_zone = self.policy.llm_zone(query.key) if self.policy.llm_zones else None
        if llm_zone is not None and (entry is None or len(entry.apex) < len(llm_zone)):
            return bool(client.klass.rights & Right.LLM)
        if entry is None:
            return None
        answer = self.zones.answer(query, view)
        if answer is None:
            return True  # it never falls through to a parent, a forwarder or the LLM
        stored = Stored.of(answer.message, answer.layout, query.question_end, required=answer.required)
        hit = (stored, answer.incomplete_cname is not None)
        if len(self.zone_answers) >= ZONE_ANSWERS_MAX:
            self.zone_answers.clear()
        self.zone_answers[query.key, query.qtype, view] = hit
        return hit

    def may_resolve(self, key: bytes, qtype: int, rights: int) -> bool:
        """Whether a client with some of the rights may have this name resolved or read from the cache."""
        if rights & ASK_ABOVE == ASK_ABOVE or not rights & ASK_ABOVE:
            return True  # all of it, or only what is cached
        return bool(rights & self.policy.needed(key, qtype))

    def retire(self, previous: Installed) -> list[Image]:
        """Closes the images that only the state before had mapped."""
        gone = retired(previous.zones, self.zones)
        for image in gone:
            image.close()
        return gone
