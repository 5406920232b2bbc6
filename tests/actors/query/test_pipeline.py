"""The order of the pipeline, with fakes for zones, upstreams and models."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dns.message
import pytest

from raydns.actors.query.apexes import Apexes
from raydns.actors.query.budget import Budget, DeadlinePassed
from raydns.actors.query.forward.faults import Fault, UpstreamFailed, UpstreamUnresolved
from raydns.actors.query.forward.forwarder import Owns, Result
from raydns.actors.query.forward.message import Question, build
from raydns.actors.query.forward.reply import read
from raydns.actors.query.forward.rules import Rule, RuleTable, Target
from raydns.actors.query.forward.ttl import Lifetimes
from raydns.actors.query.pipeline import Installed, Pipeline
from raydns.nodes.streams.probe import probe_query
from raydns.schemas import wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryFlag, QueryItem, Right, Room, stamps
from raydns.schemas.cluster import ZoneEntry
from raydns.schemas.errors import RaydnsError
from tests.actors.query.kit import CNAME, HERE, NS, TXT, A, item, name, record, response, soa

AUTHORITATIVE, LOCAL, SHAREABLE = AnswerFlag.AUTHORITATIVE, AnswerFlag.LOCAL_FAILURE, AnswerFlag.SHAREABLE
IP = b"\xc0\x00\x02\x01"
Records = list[bytes]


class FakeZones:
    """Zone shards that answer from a table of name to records; ``None`` is a shard that is away."""

    def __init__(self) -> None:
        self.table: dict[bytes, Records | None] = {}
        self.asked: list[tuple[int, QueryItem]] = []

    async def ask(self, shard: int, item: QueryItem) -> AnswerItem | None:
        self.asked.append((shard, item))
        query = wire.parse_query(item.message)
        records = self.table.get(query.key, [])
        if records is None:
            return None
        question = query.key + item.message[query.question_end - 4 : query.question_end]
        authority = [] if records else [soa("example.")]
        message = response(b"\0\0", question, records, authority, (), flags=0x8400)
        return AnswerItem(item.slot, message, int(AUTHORITATIVE | SHAREABLE), fresh_s=77, layout=wire.layout(message))


class FakeForwards:
    """Upstreams that answer from a table; an error in it is raised."""

    def __init__(self, *suffixes: str) -> None:
        target = Target("192.0.2.53", 53, "udp", False, "192.0.2.53")
        self.rules = RuleTable([Rule(name(s), (target,)) for s in suffixes])
        self.lifetimes = Lifetimes(stale_max_s=1000)
        self.table: dict[bytes, Records | RaydnsError] = {}
        self.asked: list[Question] = []

    def match(self, key: bytes) -> Rule | None:
        return self.rules.match(key)

    async def resolve(self, rule: Rule, question: Question, budget: Budget, owns: Owns = None, view: int = 0) -> Result:
        self.asked.append(question)
        found = self.table.get(question.key, [record(HERE, A, IP)])
        if isinstance(found, RaydnsError):
            raise found
        budget.spend_query(time.monotonic())
        sent = build(question, bytes)
        reply = read(response(b"\0\0", sent.asked, found), sent, self.lifetimes, 0, owns)
        if reply.chain:
            budget.spend_cname(len(reply.chain))
        return Result(reply, "192.0.2.53:53", 1, (), False)


class FakePrompts:
    """Models for ``llm.``, and for every TXT question of those who may."""

    def __init__(self) -> None:
        self.asked: list[QueryItem] = []

    def in_zone(self, key: bytes) -> bool:
        return key.endswith(name("llm."))

    def catches(self, query: wire.Query, item: QueryItem) -> bool:
        return query.qtype == TXT and query.rd and bool(item.rights & Right.CATCH_ALL)

    async def answer(self, query: wire.Query, item: QueryItem) -> AnswerItem:
        self.asked.append(item)
        question = query.key + struct.pack("!HH", query.qtype, 1)
        return AnswerItem(
            item.slot, response(b"\0\0", question, [record(HERE, TXT, b"\x02hi")], (), ()), int(SHAREABLE)
        )


class FakeSpans:
    """Remembers spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    def new_span_id(self) -> bytes:
        return bytes(7) + bytes((len(self.spans) + 1,))

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
        self.spans.append({"name": name, "span": span_id, "parent": parent_id, "error": error, **attributes})


class House:
    """A pipeline among fakes: the zone ``example.`` on shard 4, rules as given."""

    def __init__(self, *suffixes: str, prompts: bool = False, spans: FakeSpans | None = None) -> None:
        self.zones = FakeZones()
        self.forwards = FakeForwards(*suffixes)
        self.prompts = FakePrompts()
        entries = [ZoneEntry(name("example."), 0, 4, 1, 1, None), ZoneEntry(name("other.test."), 0, 5, 1, 1, None)]
        installed = Installed(
            42, Apexes(entries), self.forwards, self.prompts if prompts else None, (name("llm."),), prompts
        )
        self.pipeline = Pipeline(
            installed,
            self.zones,
            identity="query:7.g1",
            index=7,
            clock=time.monotonic,
            unix_us=lambda: time.time_ns() // 1000,
            spans=spans,
        )

    async def ask(self, query: QueryItem) -> AnswerItem:
        answer = await self.pipeline.resolve(query, time.monotonic())
        assert answer.slot == query.slot
        return answer


def texts(answer: AnswerItem) -> list[str]:
    """The answer section as a foreign implementation reads it."""
    return [str(rrset) for rrset in dns.message.from_wire(answer.message).answer]


def rcode(answer: AnswerItem) -> int:
    """The response code."""
    return answer.message[3] & 15


async def test_a_probe_is_answered_by_name() -> None:
    """The health monitor hears who answers, and nothing else is asked."""
    answer = await House(".").ask(probe_query(100))
    assert b"query:7.g1" in answer.message


async def test_names_served_here_come_first() -> None:
    """A name under an apex goes to its shard, with a rule for everything beside it; never cached, never forwarded."""
    house = House(".")
    house.zones.table[name("www.example.")] = [record(HERE, A, IP)]
    answer = await house.ask(item("WWW.example."))
    assert texts(answer) == ["www.example. 300 IN A 192.0.2.1"]
    assert answer.flags & AUTHORITATIVE
    assert answer.fresh_s == 0
    assert [shard for shard, _ in house.zones.asked] == [4]
    assert not house.forwards.asked


async def test_a_shard_that_is_away_is_servfail_and_nothing_else() -> None:
    """The name never falls through to a rule; the failure is ours and says which shard."""
    house = House(".")
    house.zones.table[name("www.example.")] = None
    answer = await house.ask(item("www.example."))
    assert rcode(answer) == 2
    assert answer.flags & LOCAL
    assert (answer.ede, answer.ede_text) == (14, "zone shard 4 does not answer")
    assert not house.forwards.asked


async def test_the_longest_rule_answers_those_who_may() -> None:
    """RD and the right to forward are needed; the answer is shareable, with its times."""
    house = House("fwd.", ".")
    answer = await house.ask(item("a.fwd."))
    assert texts(answer) == ["a.fwd. 300 IN A 192.0.2.1"]
    assert answer.flags & SHAREABLE
    assert (answer.fresh_s, answer.stale_s, answer.began) == (300, 1000, 42)
    assert [(s.room, s.outcome) for s in stamps(answer.rooms)] == [
        (Room.QUERY, Outcome.OK),
        (Room.UPSTREAM, Outcome.OK),
    ]


@pytest.mark.parametrize(
    ("query", "ede"),
    [
        (item("a.fwd.", rd=False), 20),
        (item("a.fwd.", flags=QueryFlag.LOOKUP_ONLY), 20),
        (item("a.fwd.", rights=0), 18),
    ],
)
async def test_who_may_not_is_refused_for_itself_only(query: QueryItem, ede: int) -> None:
    """Without RD or the right nothing goes upstream, and the refusal is this slot's only."""
    house = House("fwd.")
    answer = await house.ask(query)
    assert (rcode(answer), answer.ede, answer.flags & SHAREABLE) == (5, ede, 0)
    assert not house.forwards.asked


async def test_nobody_has_the_name() -> None:
    """The last step refuses with EDE 20; shareable, unless another client could get a prompt answered."""
    answer = await House("fwd.").ask(item("a.nowhere."))
    assert (rcode(answer), answer.ede, answer.ede_text) == (5, 20, "no zone, forward rule or resolver has this name")
    assert answer.flags & SHAREABLE
    assert 0 < answer.fresh_s <= 5
    answer = await House("fwd.", prompts=True).ask(item("a.nowhere.", TXT))
    assert rcode(answer) == 5
    assert not answer.flags & SHAREABLE


async def test_prompts_come_after_rules() -> None:
    """A rule takes a TXT question before the catch-all; without a rule a client that may gets its prompt answered."""
    house = House("fwd.", prompts=True)
    rights = Right.FORWARD | Right.CATCH_ALL | Right.LLM
    house.forwards.table[name("a.fwd.")] = [record(HERE, TXT, b"\x03fwd")]
    assert "fwd" in texts(await house.ask(item("a.fwd.", TXT, rights=rights)))[0]
    assert not house.prompts.asked
    assert "hi" in texts(await house.ask(item("what.is.rust.", TXT, rights=rights)))[0]
    assert rcode(await house.ask(item("what.is.rust.", TXT))) == 5


async def test_the_longer_suffix_decides_between_rule_and_llm_zone() -> None:
    """An LLM zone below a rule for everything is still an LLM zone; a rule inside of it wins."""
    house = House(".", "sub.llm.", prompts=True)
    await house.ask(item("what.llm.", TXT))
    assert len(house.prompts.asked) == 1
    await house.ask(item("a.sub.llm."))
    assert [q.key for q in house.forwards.asked] == [name("a.sub.llm.")]


async def test_a_chain_that_leaves_our_zones_goes_on() -> None:
    """CNAME first, then the forwarded records; the whole is authoritative and so never cached."""
    house = House(".")
    house.zones.table[name("www.example.")] = [record(HERE, CNAME, name("cdn.net."), 60)]
    answer = await house.ask(item("www.example."))
    assert texts(answer) == ["www.example. 60 IN CNAME cdn.net.", "cdn.net. 300 IN A 192.0.2.1"]
    assert answer.flags & AUTHORITATIVE
    assert answer.fresh_s == 0
    assert answer.layout == wire.layout(answer.message)
    assert answer.message[2] & 4  # AA is that of the name asked
    assert [s.room for s in stamps(answer.rooms)] == [Room.QUERY, Room.UPSTREAM]


async def test_a_chain_between_our_zones_needs_no_right() -> None:
    """From shard 4 to shard 5, for a client that may do nothing else."""
    house = House()
    house.zones.table[name("www.example.")] = [record(HERE, CNAME, name("a.other.test."))]
    house.zones.table[name("a.other.test.")] = [record(HERE, A, IP)]
    answer = await house.ask(item("www.example.", rd=False, rights=0))
    assert [t.split()[3] for t in texts(answer)] == ["CNAME", "A"]
    assert [shard for shard, _ in house.zones.asked] == [4, 5]


async def test_who_may_not_forward_gets_the_chain_alone() -> None:
    """NOERROR with the CNAME, which is a proper answer (RFC 1034 section 4.3.2)."""
    house = House(".")
    house.zones.table[name("www.example.")] = [record(HERE, CNAME, name("cdn.net."))]
    for query in (item("www.example.", rights=0), item("www.example.", rd=False)):
        answer = await house.ask(query)
        assert rcode(answer) == 0
        assert texts(answer) == ["www.example. 300 IN CNAME cdn.net."]
    assert not house.forwards.asked


async def test_an_upstreams_chain_into_our_zone_is_answered_by_the_zone() -> None:
    """What an upstream says of our names is not believed."""
    house = House(".")
    house.forwards.table[name("alias.net.")] = [
        record(HERE, CNAME, name("www.example.")),
        record(name("www.example."), A, b"\x06\x06\x06\x06"),
    ]
    house.zones.table[name("www.example.")] = [record(HERE, A, IP)]
    answer = await house.ask(item("alias.net."))
    assert [t.split()[-1] for t in texts(answer)] == ["www.example.", "192.0.2.1"]
    assert answer.flags & AUTHORITATIVE


async def test_a_chain_between_rules_asks_each_its_own() -> None:
    """The rule of the target is asked for the target, and the answer may be cached as a whole."""
    house = House(".", "corp.")
    house.forwards.table[name("a.net.")] = [record(HERE, CNAME, name("b.corp."), 20)]
    answer = await house.ask(item("a.net."))
    assert [q.key for q in house.forwards.asked] == [name("a.net."), name("b.corp.")]
    assert answer.flags & SHAREABLE
    assert not answer.flags & AUTHORITATIVE
    assert answer.fresh_s == 20


async def test_chains_end_by_budget_and_loops_are_noticed() -> None:
    """A chain of zone CNAMEs costs a step each; beyond the budget, and in a circle, it is SERVFAIL of ours."""
    house = House(".", "corp.")
    for n in range(30):
        here, there = ("net.", "corp.") if n % 2 else ("corp.", "net.")
        house.forwards.table[name(f"n{n}.{here}")] = [record(HERE, CNAME, name(f"n{n + 1}.{there}"))]
    answer = await house.ask(item("n0.corp."))
    assert rcode(answer) == 2
    assert answer.flags & LOCAL
    assert "CNAME" in answer.ede_text
    assert len(house.forwards.asked) == 12
    house.forwards.table[name("x.net.")] = [record(HERE, CNAME, name("x.corp."))]
    house.forwards.table[name("x.corp.")] = [record(HERE, CNAME, name("x.net."))]
    answer = await house.ask(item("x.net."))
    assert rcode(answer) == 2
    assert "loop" in answer.ede_text


@pytest.mark.parametrize(
    ("error", "flags", "fresh", "ede"),
    [
        (UpstreamFailed(Fault.TIMEOUT, "no answer", ede=22), SHAREABLE, 5, 22),
        (UpstreamFailed(Fault.BUSY, "too many", ede=22), SHAREABLE | LOCAL, 0, 22),
        (DeadlinePassed("late"), SHAREABLE | LOCAL, 0, 0),
        (UpstreamUnresolved("no address"), SHAREABLE | LOCAL, 0, 22),
    ],
)
async def test_errors_are_told_and_ours_are_never_cached(error: RaydnsError, flags: int, fresh: int, ede: int) -> None:
    """An upstream's failure may be remembered (RFC 9520), one of our own making may not."""
    house = House(".")
    house.forwards.table[name("a.")] = error
    answer = await house.ask(item("a."))
    assert (rcode(answer), answer.flags, answer.fresh_s, answer.ede) == (2, flags, fresh, ede)
    assert error.message in answer.ede_text
    assert stamps(answer.rooms)[1].outcome in {Outcome.FAILED, Outcome.TIMEOUT}


async def test_a_deadline_that_has_passed_starts_nothing() -> None:
    """SERVFAIL of ours, and nobody was asked."""
    house = House(".")
    for text in ("a.", "www.example."):
        answer = await house.ask(item(text, deadline_ms=0))
        assert rcode(answer) == 2
        assert answer.flags & LOCAL
    assert not house.forwards.asked
    assert not house.zones.asked


def _with(change: Callable[[bytes], bytes]) -> QueryItem:
    query = item("a.example.")
    query.message = change(query.message)
    return query


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (item("www.example.", 252), 5),
        (item("www.example.", 251), 5),
        (item("www.example.", 253), 4),
        (item("www.example.", 128), 1),
        (item("www.example.", 0), 1),
        (item("www.example.", 41), 1),
        (_with(lambda m: m[:2] + b"\x28\x00" + m[4:]), 5),  # UPDATE
        (_with(lambda m: m[:2] + b"\x10\x00" + m[4:]), 4),  # STATUS
        (_with(lambda m: m[:25] + b"\x00\x03" + m[27:]), 5),  # class CH
        (_with(lambda m: m[:20]), 1),
        (_with(lambda m: b""), 1),
        (_with(lambda m: m[:2] + b"\x80\x00" + m[4:]), 1),
    ],
)
async def test_what_is_no_question_for_records_is_turned_away(query: QueryItem, expected: int) -> None:
    """Transfers, meta types, other operations and classes, and what cannot be read: an answer each, nothing asked."""
    house = House(".")
    answer = await house.ask(query)
    assert rcode(answer) == expected
    assert not house.zones.asked
    assert not house.forwards.asked
    assert not answer.flags & SHAREABLE


async def test_ds_at_an_apex_is_the_parents() -> None:
    """With the parent served here too it is asked; without it the child answers (RFC 4035 section 3.1.4.1)."""
    zones = [ZoneEntry(name("example."), 0, 1, 1, 1, None), ZoneEntry(name("sub.example."), 0, 2, 1, 1, None)]
    apexes = Apexes(zones)
    found = [
        apexes.find(name("sub.example."), 0, 43),
        apexes.find(name("sub.example."), 0, A),
        apexes.find(name("a.sub.example."), 0, 43),
        apexes.find(name("example."), 0, 43),
    ]
    assert [entry.shard if entry else None for entry in found] == [1, 2, 2, 1]
    assert apexes.find(name("sub.example."), 1) is None
    assert apexes.find(name("notexample."), 0) is None


async def test_a_referral_of_ours_is_passed_on() -> None:
    """A delegation below an apex is answered by its referral: no forwarder is asked instead."""
    house = House(".")

    async def referral(shard: int, query: QueryItem) -> AnswerItem:
        question = name("www.sub.example.") + b"\0\1\0\1"
        message = response(
            b"\0\0", question, [], [record(name("sub.example."), NS, name("ns.sub.example."))], (), flags=0x8000
        )
        return AnswerItem(query.slot, message, int(AUTHORITATIVE))

    house.zones.ask = referral  # type: ignore[assignment,method-assign]
    answer = await house.ask(item("www.sub.example."))
    assert rcode(answer) == 0
    assert not house.forwards.asked


async def test_a_sampled_query_has_two_spans_and_another_has_none() -> None:
    """``query.resolve`` under the asker's span, ``upstream.exchange`` under it, and the shard gets our span."""
    spans = FakeSpans()
    house = House(".", spans=spans)
    await house.ask(item("a."))
    assert not spans.spans
    parent = b"parent.."
    await house.ask(item("a.", trace_flags=1, trace_id=bytes(16), span_id=parent))
    exchange, resolve = spans.spans
    assert (exchange["name"], resolve["name"]) == ("upstream.exchange", "query.resolve")
    assert resolve["parent"] == parent
    assert exchange["parent"] == resolve["span"]
    assert exchange["server.address"] == "192.0.2.53"
    house.zones.table[name("www.example.")] = [record(HERE, A, IP)]
    await house.ask(item("www.example.", trace_flags=1, span_id=parent))
    assert house.zones.asked[-1][1].span_id == spans.spans[-1]["span"]


async def test_the_budget_travels_with_the_query() -> None:
    """What a shard gets is what is left."""
    house = House(".")
    house.zones.table[name("www.example.")] = [record(HERE, CNAME, name("a.other.test."))]
    await house.ask(item("www.example.", deadline_ms=900, cname_left=5, queries_left=9))
    first, second = (query for _, query in house.zones.asked)
    assert (first.cname_left, second.cname_left) == (5, 4)
    assert first.queries_left == 9
    assert 0 < second.deadline_ms <= 900
