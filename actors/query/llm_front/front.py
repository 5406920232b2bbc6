"""``LLMFront``: which queries are prompts, how long their clients wait, and what the tiers below may do with answers.

| answer | shared | kept | why |
| --- | --- | --- | --- |
| text | yes | min(TTL, ``answer_ttl_s``) | the same for all |
| pending, partial | yes | no, only those who wait | all waiters of a flight get it; asking again joins the call |
| error of a provider | yes | its TTL | the same for all |
| quota used up, busy | yes | no; an older answer is better | nobody else could lead either |
| this client's limit, TC to prove a source, no right | this slot only | no | the next waiter leads |
| zone data, NODATA, help | yes | no (authoritative) | made here in microseconds |
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final
from weakref import WeakKeyDictionary

from raydns.actors.llm.messages import (
    PROMPT_SIZE_MAX,
    WAIT_MS_MAX,
    AskRequest,
    AskResult,
    Kind,
    client_prefix,
    decode_result,
    encode,
)
from raydns.nodes.metrics import Counter, Metrics
from raydns.schemas import dns, names, wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryFlag, QueryItem, Right, Room, stamp
from raydns.schemas.config.llm import LLMConfig

from . import zone as zone_data
from .answer import Message, message, text_message
from .names import SPECIAL_USE, Asked, Zones, asked_of, key_of

log = logging.getLogger(__name__)

MARGIN_MS: Final = 150
"""Kept of the query's deadline for the way down; a pending answer is worth more than the ingress's SERVFAIL."""
GRACE_MS: Final = 100
"""How much longer than it was told we wait for an actor that may be dead or stopped."""
WAIT_MS_MIN: Final = 50

_OUTCOMES: Final = {
    Kind.ANSWER: Outcome.OK,
    Kind.PARTIAL: Outcome.PENDING,
    Kind.PENDING: Outcome.PENDING,
    Kind.LIMITED: Outcome.REFUSED,
    Kind.QUOTA: Outcome.REFUSED,
    Kind.VERIFY: Outcome.REFUSED,
    Kind.BUSY: Outcome.FAILED,
    Kind.ERROR: Outcome.FAILED,
}
_SHARED: Final = AnswerFlag.SHAREABLE
_OURS: Final = AnswerFlag.SHAREABLE | AnswerFlag.LOCAL_FAILURE
_FLAGS: Final = {
    Kind.ANSWER: _SHARED,
    Kind.ERROR: _SHARED,
    Kind.PARTIAL: _OURS,
    Kind.PENDING: _OURS,
    Kind.QUOTA: _OURS,
    Kind.BUSY: _OURS,
    Kind.LIMITED: 0,
    Kind.VERIFY: 0,
}


class LLMFront:
    """Made anew for each configuration; holds no query's state.

    Args:
        config: section ``llm``.
        ask: sends an encoded ``AskRequest`` to the LLM actor and brings its ``AskResult``; may raise or never end.
            Which of several actors: the key's ring, or ``request.key``'s first octets modulo their number.
        clock: Unix time in seconds.
        metrics: where answers are counted.
    """

    def __init__(
        self,
        config: LLMConfig,
        ask: Callable[[bytes], Awaitable[bytes]],
        clock: Callable[[], float] = time.time,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config
        self._ask = ask
        self._clock = clock
        self._zones = Zones(config)
        self._answers = _counter(metrics if metrics is not None else Metrics())

    def in_zone(self, key: bytes) -> bool:
        """Whether a name (key form) is in an LLM zone."""
        return self._zones.zone_of(key) is not None

    def catches(self, query: wire.Query, item: QueryItem) -> bool:
        """Whether a name outside all zones is a prompt: a stub's TXT question by a client that may ask."""
        if not self._config.enabled or self._config.catch_all != "stub":
            return False
        if query.qtype != dns.Type.TXT or query.qclass != dns.Class.IN or not query.rd:
            return False
        if not item.rights & Right.CATCH_ALL:
            return False
        labels = names.labels(self._zones.stripped(query.key))
        if not labels or labels[-1] in SPECIAL_USE:
            return False
        return not any(label.startswith(b"_") for label in labels)

    async def answer(self, query: wire.Query, item: QueryItem) -> AnswerItem:
        """The answer to a query that is ``in_zone`` or that this ``catches``; never raises."""
        zone = self._zones.zone_of(query.key)
        if zone is not None:
            known = self._zone_answer(query, item, zone)
            if known is not None:
                return known
        asked = self._asked(query, zone)
        if asked.reserved:
            return self._plain(item, zone_data.nodata(query, zone), "nodata")
        if asked.help:
            return self._plain(item, zone_data.help_message(query, zone, self._config.max_answer_bytes), "help")
        if zone is not None and not item.rights & Right.LLM:
            refused = message(query, dns.Rcode.REFUSED, [])
            self._answers.inc("refused")
            return _item(item, refused, 0, ede=dns.Ede.PROHIBITED, text="this client may not ask a model")
        # Compatibility forms may lengthen a name sixfold; what is cut is no question any more.
        return await self._from_model(query, item, asked.prompt[:PROMPT_SIZE_MAX].rstrip(), aa=zone is not None)

    # -- without a model ---------------------------------------------------------------------------------

    def _zone_answer(self, query: wire.Query, item: QueryItem, zone: bytes) -> AnswerItem | None:
        """All that an LLM zone answers by itself; ``None`` for a TXT question below its apex."""
        if query.qclass != dns.Class.IN or query.qtype in (dns.Type.AXFR, dns.Type.IXFR):
            self._answers.inc("refused")
            return _item(item, message(query, dns.Rcode.REFUSED, []), 0, ede=dns.Ede.NOT_SUPPORTED)
        if query.qtype == dns.Type.TXT:
            if query.key != zone:
                return None
            return self._plain(item, zone_data.help_message(query, zone, self._config.max_answer_bytes), "help")
        found = zone_data.static(query, zone, item.destination)
        if found is None:
            return self._plain(item, zone_data.nodata(query, zone), "nodata")
        return self._plain(item, found, "zone")

    def _plain(self, item: QueryItem, found: Message, kind: str) -> AnswerItem:
        self._answers.inc(kind)
        return _item(item, found, AnswerFlag.SHAREABLE | AnswerFlag.AUTHORITATIVE)

    def _asked(self, query: wire.Query, zone: bytes | None) -> Asked:
        """The labels as they came (case and all), without those of the zone or of a search suffix."""
        kept = self._zones.stripped(query.key) if zone is None else query.key[: len(query.key) - len(zone)] + names.ROOT
        return asked_of(names.labels(query.qname[: len(kept) - 1] + names.ROOT))

    # -- with a model ------------------------------------------------------------------------------------

    async def _from_model(self, query: wire.Query, item: QueryItem, prompt: str, *, aa: bool) -> AnswerItem:
        start = self._clock()
        result = await self._result(query, item, prompt)
        self._answers.inc(result.kind.value)
        if result.kind is Kind.VERIFY:
            # Spoofed sources never come back by TCP; honest ones do, and cost one round trip.
            found = message(query, dns.TC | (dns.AA if aa else 0), [])
        else:
            found = text_message(query, result.text, result.ttl, aa=aa, size_max=self._config.max_answer_bytes)
        outcome = Outcome.HIT if result.source == "hit" else _OUTCOMES[result.kind]
        if result.source == "joined" and result.kind is Kind.ANSWER:
            outcome = Outcome.JOINED
        duration = int((self._clock() - start) * 1e6)
        keeps = result.kind in (Kind.ANSWER, Kind.ERROR)
        return _item(
            item,
            found,
            _FLAGS[result.kind],
            fresh_s=result.ttl if keeps else 0,
            stale_s=self._config.cache_ttl_s if result.kind is Kind.ANSWER else 0,
            ede=result.ede,
            text=result.text if result.kind not in (Kind.ANSWER, Kind.PARTIAL) else "",
            rooms=stamp(Room.LLM, outcome, 0, int(start * 1e6), duration),
        )

    async def _result(self, query: wire.Query, item: QueryItem, prompt: str) -> AskResult:
        """Asks the actor within the client's patience; whatever goes wrong becomes something to tell."""
        wait_ms = self._wait_ms(query, item)
        request = AskRequest(
            key=key_of(self._config, "", prompt),
            prompt=prompt,
            client=client_prefix(item.source),
            wait_ms=wait_ms,
            proven=bool(item.flags & QueryFlag.PROVEN) or item.transport != dns.Transport.UDP,
            trace_id=item.trace_id,
            span_id=item.span_id,
            trace_flags=item.trace_flags,
        )
        config = self._config
        try:
            async with asyncio.timeout((wait_ms + GRACE_MS) / 1000.0):
                return decode_result(await self._ask(encode(request)))
        except TimeoutError:
            text = "pending: ask again in 5 s"
            return AskResult(Kind.PENDING, text, config.pending_ttl_s, dns.Ede.NOT_READY, final=False)
        except Exception as error:  # a dead actor raises what Ray likes; the client gets a text, we a line
            log.warning("llm.ask_failed", extra={"problem": type(error).__name__})
            return AskResult(Kind.BUSY, "error: restarting, ask again", 1, dns.Ede.NOT_READY)

    def _wait_ms(self, query: wire.Query, item: QueryItem) -> int:
        """A stub (RD=1) waits long; a resolver (RD=0) gives up early and then asks everybody (llm.md 1)."""
        patience = self._config.wait_stub_ms if query.rd else self._config.wait_resolver_ms
        return max(WAIT_MS_MIN, min(patience, WAIT_MS_MAX, item.deadline_ms - MARGIN_MS - GRACE_MS))


_counters: WeakKeyDictionary[Metrics, Counter] = WeakKeyDictionary()


def _counter(metrics: Metrics) -> Counter:
    """The one counter in ``metrics``: a front made anew after a reload goes on counting where the old one was."""
    counter = _counters.get(metrics)
    if counter is None:
        counter = _counters[metrics] = metrics.counter(
            "raydns_query_llm_answers_total", "Answers of the LLM pipeline, by what they are.", "kind"
        )
    return counter


def _item(
    item: QueryItem,
    found: Message,
    flags: int,
    *,
    fresh_s: int = 0,
    stale_s: int = 0,
    ede: int = -1,
    text: str = "",
    rooms: bytes = b"",
) -> AnswerItem:
    return AnswerItem(
        item.slot,
        found.data,
        int(flags),
        fresh_s=fresh_s,
        stale_s=stale_s,
        layout=found.layout,
        rooms=rooms,
        ede=int(ede),
        ede_text=text[:200],
    )
