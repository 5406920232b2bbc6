"""The pipeline: the one order in which a miss is answered.

    health probe → names served here → forward rules → LLM names → refuse

Each step either answers or passes on. A chain of CNAMEs that leaves the step that answered starts again at the top
with its new name, under the same budget; whatever was authoritative on the way makes the whole so, and such an answer
is cached nowhere. A name under an apex never falls through, whatever its shard says or does not say. An LLM zone that
is deeper than the forward rule of its name goes before it: the longest suffix decides.

Rules of this file: no clock, no IO, no Ray; every collaborator is a protocol of ``ports.py``; ``resolve`` never
raises for what a client, a shard or an upstream did.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import msgspec

from raydns.nodes.streams.probe import answer_probe
from raydns.schemas import dns, names, wire
from raydns.schemas.batch import (
    ROOM,
    ROOMS_MAX,
    AnswerFlag,
    AnswerItem,
    Outcome,
    QueryFlag,
    QueryItem,
    Right,
    Room,
    stamp,
)
from raydns.schemas.errors import MessageError, RaydnsError

from .answers import failed, forwarded, malformed, refused
from .apexes import Apexes
from .budget import Budget, BudgetExhausted, DeadlinePassed
from .forward.faults import Fault, UpstreamFailed
from .forward.forwarder import Owns, Result
from .forward.message import Question
from .forward.rules import Rule
from .join import join, open_end, query_for
from .ports import Forwards, Prompts, Spans, Zones
from .spans import Exchanged, Resolved, tell_exchange, tell_query

log = logging.getLogger(__name__)

_ROOMS_SIZE_MAX: Final = ROOM.size * ROOMS_MAX
_NXNAME: Final = 128  # RFC 9824 section 3.4: a question for it is FORMERR
_TRANSFERS: Final = frozenset({int(dns.Type.AXFR), int(dns.Type.IXFR)})
# Plain numbers: ``&`` on an IntFlag costs microseconds.
_FORWARD: Final = Right.FORWARD
_LOOKUP_ONLY: Final = QueryFlag.LOOKUP_ONLY
_PROBE: Final = QueryFlag.PROBE
_NOT_A_DOOR = "zone transfers, NOTIFY and UPDATE do not come this way"
_NOBODY = "no zone, forward rule or resolver has this name"


class Installed(msgspec.Struct, frozen=True, gc=False):
    """What the pipeline answers from: swapped as a whole, so that no query mixes two configurations."""

    version: int  # packed state version
    apexes: Apexes
    forwards: Forwards
    prompts: Prompts | None  # None: no name is answered by a model
    prompt_zones: tuple[bytes, ...] = ()  # key form
    catch_all: bool = False  # whether some clients get prompts answered outside of LLM zones


class Pipeline:
    """See the head of this file.

    Args:
        installed: what to answer from.
        zones: the way to the zone shards.
        identity: the actor's name, for probes.
        index: its number, for time stamps.
        clock: monotonic seconds.
        unix_us: Unix time in microseconds.
        spans: takes spans of sampled queries; ``None``: there are none.
    """

    def __init__(
        self,
        installed: Installed,
        zones: Zones,
        *,
        identity: str,
        index: int,
        clock: Callable[[], float],
        unix_us: Callable[[], int],
        spans: Spans | None = None,
    ) -> None:
        self.installed = installed
        self.zones = zones
        self.identity = identity
        self.index = index
        self.clock = clock
        self.unix_us = unix_us
        self.spans = spans

    async def resolve(self, item: QueryItem, now: float) -> AnswerItem:
        """The answer to one query; never raises but for bugs and cancellation.

        Args:
            item: as it came; its budget and deadline count from ``now``.
            now: monotonic seconds.
        """
        if item.flags & _PROBE and (probed := answer_probe(item, self.identity)) is not None:
            return probed
        try:
            query = wire.parse_query(item.message)
        except MessageError:
            return malformed(item.slot, item.message)
        started_us = self.unix_us()
        installed = self.installed
        span_id = self.spans.new_span_id() if item.sampled and self.spans is not None else item.span_id
        trip = _Trip(self, item, Budget.from_item(item, now), span_id)
        answer = await trip.run(query)
        answer.slot = item.slot
        answer.began = installed.version
        ended_us = self.unix_us()
        outcome = outcome_of(answer)
        own = stamp(Room.QUERY, outcome, self.index, started_us, ended_us - started_us)
        answer.rooms = (own + answer.rooms)[:_ROOMS_SIZE_MAX]
        if item.sampled:
            answer.flags |= AnswerFlag.TRACED
            if self.spans is not None:
                told = Resolved(query, answer, self.identity, started_us, ended_us)
                tell_query(self.spans, item, trip.span_id, told)
        return answer


class _Trip:
    """One query's way through the pipeline: what is the same at each name of its chain."""

    __slots__ = ("budget", "installed", "item", "pipeline", "span_id")

    def __init__(self, pipeline: Pipeline, item: QueryItem, budget: Budget, span_id: bytes) -> None:
        self.pipeline = pipeline
        self.installed = pipeline.installed
        self.item = item
        self.budget = budget
        self.span_id = span_id  # ours, the parent of what happens further up

    async def run(self, query: wire.Query) -> AnswerItem:
        """The answer, with every error in its form for the client."""
        if (early := _unwelcome(query, self.item, self.installed)) is not None:
            return early
        slot = self.item.slot
        try:
            self.budget.check(self.pipeline.clock())
            return await self._chain(query)
        except MessageError as error:
            log.error("answer_unreadable", extra={"problem": str(error), "actor": self.pipeline.identity})
            return failed(slot, query, dns.Ede.INVALID_DATA, _text(error), ours=True)
        except RaydnsError as error:
            return self._failure(query, error)

    async def _chain(self, query: wire.Query) -> AnswerItem:
        """Answers name after name until the chain has its end."""
        answer, target = await self._step(query, self.item.message)
        if answer is None:
            return self._refuse(query)
        seen = {query.key}
        while target is not None:
            if target in seen:
                raise MessageError("the chain of CNAMEs is a loop")
            seen.add(target)
            self.budget.check(self.pipeline.clock())
            onward, message = query_for(target, query)
            try:
                more, target = await self._step(onward, message)
            except RaydnsError as error:
                error.where = error.where or names.to_text(onward.key)
                raise
            if more is None:
                break  # nobody here may or can say more: the chain alone is a proper answer (RFC 1034 4.3.2)
            answer = join(answer, more, query)
        return answer

    async def _step(self, query: wire.Query, message: bytes) -> tuple[AnswerItem | None, bytes | None]:
        """One name: its answer, and where the chain goes on; ``None`` where no step has the name."""
        installed, item = self.installed, self.item
        entry = installed.apexes.find(query.key, item.view_id, query.qtype)
        if entry is not None:
            return await self._from_zone(query, message, entry.shard)
        rule = installed.forwards.match(query.key)
        if installed.prompts is not None and _prompt_zone_wins(query.key, rule, installed):
            return await self._from_prompts(installed.prompts, query, message), None
        if rule is not None:
            if not (query.rd and item.rights & _FORWARD) or item.flags & _LOOKUP_ONLY:
                return None, None
            return await self._from_upstreams(rule, query)
        if installed.prompts is not None and installed.prompts.catches(query, item):
            return await self._from_prompts(installed.prompts, query, message), None
        return None, None

    async def _from_zone(self, query: wire.Query, message: bytes, shard: int) -> tuple[AnswerItem, bytes | None]:
        item = self._onward(message)
        answer = await self.pipeline.zones.ask(shard, item)
        if answer is None:
            text = f"zone shard {shard} does not answer"
            answer = failed(item.slot, query, dns.Ede.NOT_READY, text, ours=True)
            answer.flags |= AnswerFlag.AUTHORITATIVE
            return answer, None
        answer.flags |= AnswerFlag.AUTHORITATIVE
        answer.fresh_s = answer.stale_s = 0
        target = open_end(answer.message, query) if query.qtype != dns.Type.ANY else None
        if target is not None:
            self.budget.spend_cname()
        return answer, target

    async def _from_upstreams(self, rule: Rule, query: wire.Query) -> tuple[AnswerItem, bytes | None]:
        question = Question(query.key, query.qtype, query.qclass, query.do, query.cd)
        started_us = self.pipeline.unix_us()
        result: Result | None = None
        error: RaydnsError | None = None
        forwards = self.installed.forwards
        try:
            result = await forwards.resolve(rule, question, self.budget, self._owns(rule), self.item.view_id)
        except RaydnsError as raised:
            error = raised
        room = self._upstream_room(question, started_us, result, error)
        if result is None:
            assert error is not None
            answer = self._failure(query, error)
            answer.rooms = room
            return answer, None
        answer = forwarded(self.item.slot, result.reply, forwards.lifetimes)
        answer.rooms = room
        return answer, result.reply.target

    def _upstream_room(
        self, question: Question, started_us: int, result: Result | None, error: RaydnsError | None
    ) -> bytes:
        """The time stamp of what the upstreams did, and its span."""
        pipeline = self.pipeline
        ended_us = pipeline.unix_us()
        outcome = Outcome.OK
        if result is not None and result.joined:
            outcome = Outcome.JOINED
        elif error is not None:
            timed_out = isinstance(error, UpstreamFailed) and error.fault is Fault.TIMEOUT
            outcome = Outcome.TIMEOUT if timed_out or isinstance(error, DeadlinePassed) else Outcome.FAILED
        if self.item.sampled and pipeline.spans is not None:
            told = Exchanged(question, started_us, ended_us, ended_us - int(pipeline.clock() * 1e6), result, error)
            tell_exchange(pipeline.spans, self.item, self.span_id, told)
        return stamp(Room.UPSTREAM, outcome, pipeline.index, started_us, ended_us - started_us)

    def _failure(self, query: wire.Query, error: RaydnsError) -> AnswerItem:
        slot = self.item.slot
        if isinstance(error, UpstreamFailed):
            fresh_s = self.installed.forwards.lifetimes.failure_ttl_s
            return failed(slot, query, error.ede, _text(error), ours=error.ours, fresh_s=fresh_s)
        ede = dns.Ede.OTHER if isinstance(error, BudgetExhausted) else dns.Ede.NO_REACHABLE_AUTHORITY
        return failed(slot, query, ede, _text(error), ours=True)

    async def _from_prompts(self, prompts: Prompts, query: wire.Query, message: bytes) -> AnswerItem:
        return await prompts.answer(query, self._onward(message))

    def _onward(self, message: bytes) -> QueryItem:
        """The item that travels on: the same client, what is left of the budget, our span."""
        item = msgspec.structs.replace(self.item, message=message, span_id=self.span_id)
        self.budget.write_to(item, self.pipeline.clock())
        return item

    def _owns(self, rule: Rule) -> Owns:
        """Which names of a chain are this rule's to answer; the others go through the pipeline themselves."""
        installed, view = self.installed, self.item.view_id
        forwards = installed.forwards
        if forwards.match(rule.suffix) is not rule:  # a reload took the rule away meanwhile
            return None

        def owns(key: bytes) -> bool:
            return (
                forwards.match(key) is rule
                and installed.apexes.find(key, view) is None
                and not (installed.prompts is not None and _prompt_zone_wins(key, rule, installed))
            )

        return owns

    def _refuse(self, query: wire.Query) -> AnswerItem:
        installed, slot = self.installed, self.item.slot
        if installed.forwards.match(query.key) is not None:
            if not query.rd or self.item.flags & _LOOKUP_ONLY:
                text = "recursion was not desired, and nothing here has this name"
                return refused(slot, query, dns.Ede.NOT_AUTHORITATIVE, text)
            return refused(slot, query, dns.Ede.PROHIBITED, "this client may not forward")
        # Another client, or one that sets RD, may get a prompt answered under the same name: not to be shared.
        shareable = not (installed.catch_all and query.qtype == dns.Type.TXT)
        return refused(slot, query, dns.Ede.NOT_AUTHORITATIVE, _NOBODY, shareable=shareable)


def _prompt_zone_wins(key: bytes, rule: Rule | None, installed: Installed) -> bool:
    """Whether a name is in an LLM zone that is deeper than the forward rule of the name."""
    if installed.prompts is None or not installed.prompts.in_zone(key):
        return False
    if rule is None:
        return True
    longest = max(
        (len(zone) for zone in installed.prompt_zones if names.is_subdomain(key, zone)), default=len(rule.suffix) + 1
    )
    return longest > len(rule.suffix)


def _unwelcome(query: wire.Query, item: QueryItem, installed: Installed) -> AnswerItem | None:
    """Answers to what no step takes: operations, classes and types that are not questions for records."""
    slot = item.slot
    if query.opcode != dns.Opcode.QUERY:
        if query.opcode in {dns.Opcode.NOTIFY, dns.Opcode.UPDATE}:
            return refused(slot, query, dns.Ede.NOT_SUPPORTED, _NOT_A_DOOR)
        return refused(slot, query, dns.Ede.NOT_SUPPORTED, "unknown operation", rcode=dns.Rcode.NOTIMP)
    if query.qclass != dns.Class.IN:
        return refused(slot, query, dns.Ede.NOT_SUPPORTED, "only class IN is served here")
    qtype = query.qtype
    if qtype in {0, dns.Type.OPT, _NXNAME}:  # RFC 6895 section 3.1; RFC 6891 section 6.1.1
        return refused(slot, query, dns.Ede.OTHER, "no type that can be asked for", rcode=dns.Rcode.FORMERR)
    if qtype in _TRANSFERS:
        return refused(slot, query, dns.Ede.NOT_SUPPORTED, _NOT_A_DOOR)
    if 128 <= qtype < 255:  # RFC 6895 section 3.1: query and meta types; none of the others is a question
        return refused(slot, query, dns.Ede.NOT_SUPPORTED, "unknown query type", rcode=dns.Rcode.NOTIMP)
    return None


def outcome_of(answer: AnswerItem) -> Outcome:
    """What became of a query, for time stamps and metrics."""
    rcode = answer.message[3] & dns.RCODE_MASK
    if rcode == dns.Rcode.REFUSED:
        return Outcome.REFUSED
    if rcode == dns.Rcode.NXDOMAIN:
        return Outcome.NEGATIVE
    return Outcome.OK if rcode == dns.Rcode.NOERROR else Outcome.FAILED


def _text(error: RaydnsError) -> str:
    return str(error)[:200]
