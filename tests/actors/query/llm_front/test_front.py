"""Which queries are prompts, what is answered without a model, how long clients wait, what may be shared and kept."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from raydns.actors.llm.messages import AskRequest, AskResult, Kind, decode_request, encode
from raydns.actors.query.llm_front import LLMFront
from raydns.nodes.metrics import Metrics
from raydns.schemas import wire
from raydns.schemas.batch import AnswerFlag, AnswerItem, Outcome, QueryFlag, Right, Room, stamps
from raydns.schemas.config.llm import LLMConfig
from raydns.schemas.dns import Ede, Transport, Type

from .harness import item, query


class Model:
    """An LLM actor that answers with one result and keeps what it was asked."""

    def __init__(self, result: AskResult | None = None) -> None:
        self.result = result or AskResult(Kind.ANSWER, "Rust is a language.", 300, model="m")
        self.asked: list[AskRequest] = []

    async def __call__(self, request: bytes) -> bytes:
        self.asked.append(decode_request(request))
        return encode(self.result)


def front(ask: Callable[[bytes], Awaitable[bytes]] | None = None, **changes: Any) -> LLMFront:
    """A front with these options."""
    return LLMFront(LLMConfig.model_validate(changes), ask or Model())


def parsed(answer: AnswerItem) -> dns.message.Message:
    """The message, after the checks that every answer must pass."""
    message = dns.message.from_wire(answer.message)
    assert answer.message[:2] == b"\0\0"
    assert message.edns == -1
    assert answer.layout == wire.layout(answer.message)
    assert answer.slot == 7
    return message


def text(answer: AnswerItem) -> str:
    """The text of the one TXT record."""
    message = parsed(answer)
    assert len(message.answer) == 1
    return b"".join(message.answer[0][0].strings).decode()


@pytest.mark.parametrize(
    ("name", "caught"),
    [
        ("what.is.rust.", True),
        ("what is rust.", True),
        ("today.", True),
        ("what.is.love.", True),
        ("google.com.", True),
        (".", False),
        ("_dmarc.example.", False),
        ("x._domainkey.example.", False),
        ("localhost.", False),
        ("a.localhost.", False),
        ("1.0.0.127.in-addr.arpa.", False),
        ("x.onion.", False),
        ("x.invalid.", False),
        ("x.test.", False),
        ("printer.local.", False),
        ("x.alt.", False),
        ("this is a test.", True),
    ],
)
def test_catch_all_names(name: str, caught: bool) -> None:
    """Any name is a prompt, but the root, service names and special-use names (RFC 6761)."""
    assert front().catches(query(name), item(name)) is caught


def test_catch_all_conditions() -> None:
    """Only TXT, IN, RD=1, a client with the right, and a configuration that wants it."""
    name = "what.is.rust."
    assert not front().catches(query(name, Type.A), item())
    assert not front().catches(query(name, qclass=3), item())
    assert not front().catches(query(name, rd=False), item())
    assert not front().catches(query(name), item(rights=Right.LLM))
    assert not front(catch_all="off").catches(query(name), item())
    assert not front(enabled=False).catches(query(name), item())
    stripping = front(strip_suffixes=["corp.local."])
    assert stripping.catches(query("what.is.rust.corp.local."), item())
    assert not stripping.catches(query("what.is.rust.local."), item())


def test_in_zone() -> None:
    """The zone and what is below it, if the feature is on."""
    assert front().in_zone(query("LLM.example.").key)
    assert front().in_zone(query("a.b.llm.EXAMPLE.").key)
    assert not front().in_zone(query("example.").key)
    assert not front(enabled=False).in_zone(query("llm.example.").key)


async def test_answer_in_zone_and_catch_all() -> None:
    """The same prompt by zone and catch-all has one key; AA only in the zone; both shared and kept for their TTL."""
    model = Model()
    subject = front(model)
    zone = await subject.answer(query("WHAT.is.rust.llm.example.", rd=False), item())
    stub = await subject.answer(query("what-is-rust."), item())
    assert text(zone) == text(stub) == "Rust is a language."
    assert parsed(zone).flags & dns.flags.AA
    assert not parsed(stub).flags & dns.flags.AA
    assert parsed(zone).answer[0].name.to_text() == "what.is.rust.llm.example."
    assert model.asked[0].key == model.asked[1].key
    assert model.asked[0].prompt == "what is rust"
    for answer in (zone, stub):
        assert answer.flags == AnswerFlag.SHAREABLE
        assert (answer.fresh_s, parsed(answer).answer[0].ttl, answer.ede) == (300, 300, -1)
        (room,) = stamps(answer.rooms)
        assert (room.room, room.outcome) == (Room.LLM, Outcome.OK)


async def test_suffix_is_stripped_from_the_prompt() -> None:
    """A search suffix, also behind the zone, is no part of the prompt; case in what is left does not matter."""
    model = Model()
    subject = front(model, strip_suffixes=["corp.local."])
    await subject.answer(query("What.Is.Rust.corp.LOCAL."), item())
    await subject.answer(query("What.Is.Rust.llm.example.corp.local."), item())
    assert [asked.prompt for asked in model.asked] == ["what is rust"] * 2


@pytest.mark.parametrize(
    ("qtype", "expected"),
    [
        (Type.SOA, "ns.llm.example. hostmaster.llm.example. 1 3600 600 604800 300"),
        (Type.NS, "ns.llm.example."),
        (Type.CAA, '0 issue ";"'),
        (Type.ANY, '"RFC8482" ""'),
    ],
)
async def test_apex(qtype: int, expected: str) -> None:
    """The apex has SOA, NS and a CAA that lets nobody issue; ANY is minimal (RFC 8482)."""
    answer = await front().answer(query("llm.example.", qtype), item())
    message = parsed(answer)
    assert message.answer[0][0].to_text() == expected
    assert message.flags & dns.flags.AA
    assert answer.flags == AnswerFlag.SHAREABLE | AnswerFlag.AUTHORITATIVE


async def test_name_server_has_the_address_that_was_asked() -> None:
    """``ns`` of the zone is where the client's query went."""
    answer = await front().answer(query("ns.llm.example.", Type.A), item())
    assert parsed(answer).answer[0][0].to_text() == "192.0.2.53"
    six = item(destination=bytes.fromhex("20010db8000000000000000000000053"))
    answer = await front().answer(query("ns.llm.example.", Type.AAAA), six)
    assert parsed(answer).answer[0][0].to_text() == "2001:db8::53"
    answer = await front().answer(query("ns.llm.example.", Type.AAAA), item())
    assert not parsed(answer).answer


@pytest.mark.parametrize("qtype", [Type.A, Type.AAAA, Type.NS, Type.MX, Type.DS, Type.HTTPS, 65280])
@pytest.mark.parametrize("name", ["rust.llm.example.", "what.is.rust.llm.example.", "_dmarc.llm.example."])
async def test_other_types_are_nodata(name: str, qtype: int) -> None:
    """Minimised names and other types are NODATA with SOA, never NXDOMAIN (RFC 8020), and cost no call."""
    model = Model()
    answer = await front(model).answer(query(name, qtype, rd=False), item())
    message = parsed(answer)
    assert message.rcode() == dns.rcode.NOERROR
    assert not message.answer
    assert message.authority[0].name.to_text() == "llm.example."
    assert message.authority[0].ttl == message.authority[0][0].minimum == 300
    assert message.flags & dns.flags.AA
    assert not model.asked


@pytest.mark.parametrize(
    "name", ["_acme-challenge", "_dmarc", "s1._domainkey", "abc._32", "x._p2", "x._m-a", "_sip._tcp"]
)
async def test_reserved_names_never_reach_the_model(name: str) -> None:
    """TXT of reserved and control labels is NODATA."""
    model = Model()
    answer = await front(model).answer(query(f"{name}.llm.example."), item())
    assert not parsed(answer).answer
    assert parsed(answer).rcode() == dns.rcode.NOERROR
    assert not model.asked


@pytest.mark.parametrize("name", ["llm.example.", "_help.llm.example.", "_HELP.llm.example.", r"\000.llm.example."])
async def test_help(name: str) -> None:
    """The apex, ``_help`` and a prompt without words explain how to ask, and cost no call."""
    model = Model()
    answer = await front(model).answer(query(name), item())
    assert "llm.example" in text(answer)
    assert text(answer).count(" / ") == 3
    assert "clear text" in text(answer)
    assert len(answer.message) <= 1232
    assert not model.asked


async def test_other_classes_and_transfers_are_refused() -> None:
    """CH never reaches a model; zone transfers are refused."""
    model = Model()
    for asked in (query("x.llm.example.", qclass=3), query("llm.example.", Type.AXFR), query("llm.example.", 251)):
        answer = await front(model).answer(asked, item())
        assert parsed(answer).rcode() == dns.rcode.REFUSED
        assert not answer.flags & AnswerFlag.SHAREABLE
    assert not model.asked


async def test_client_without_the_right() -> None:
    """A class that may not ask models is refused, alone; the zone's own records it gets."""
    model = Model()
    answer = await front(model).answer(query("what.llm.example."), item(rights=0))
    assert parsed(answer).rcode() == dns.rcode.REFUSED
    assert (answer.flags, answer.ede) == (0, Ede.PROHIBITED)
    assert parsed(await front(model).answer(query("llm.example.", Type.SOA), item(rights=0))).answer
    assert not model.asked


OURS = AnswerFlag.SHAREABLE | AnswerFlag.LOCAL_FAILURE


@pytest.mark.parametrize(
    ("kind", "flags", "fresh", "outcome"),
    [
        (Kind.ANSWER, AnswerFlag.SHAREABLE, 4, Outcome.OK),
        (Kind.ERROR, AnswerFlag.SHAREABLE, 4, Outcome.FAILED),
        (Kind.PENDING, OURS, 0, Outcome.PENDING),
        (Kind.PARTIAL, OURS, 0, Outcome.PENDING),
        (Kind.QUOTA, OURS, 0, Outcome.REFUSED),
        (Kind.BUSY, OURS, 0, Outcome.FAILED),
        (Kind.LIMITED, 0, 0, Outcome.REFUSED),
    ],
)
async def test_what_may_be_shared_and_kept(kind: Kind, flags: int, fresh: int, outcome: int) -> None:
    """Answers and errors are kept, what passes is only shared, what concerns one client is not even that."""
    ede = -1 if kind is Kind.ANSWER else int(Ede.NOT_READY)
    answer = await front(Model(AskResult(kind, "some text", 4, ede))).answer(query("what.is.rust."), item())
    assert text(answer) == "some text"
    assert (answer.flags, answer.fresh_s, answer.ede) == (flags, fresh, ede)
    assert parsed(answer).answer[0].ttl == 4
    assert parsed(answer).rcode() == dns.rcode.NOERROR
    assert stamps(answer.rooms)[0].outcome == outcome


async def test_unproven_source_is_sent_to_tcp() -> None:
    """VERIFY is an empty answer with TC for this slot; what is proven is told to the actor."""
    model = Model(AskResult(Kind.VERIFY, "", 0))
    answer = await front(model).answer(query("what.is.rust."), item(transport=Transport.UDP))
    message = parsed(answer)
    assert message.flags & dns.flags.TC
    assert not message.answer
    assert answer.flags == 0
    await front(model).answer(query("a."), item(transport=Transport.UDP, flags=QueryFlag.PROVEN))
    await front(model).answer(query("a."), item(transport=Transport.TCP))
    assert [asked.proven for asked in model.asked] == [False, True, True]


@pytest.mark.parametrize(
    ("rd", "deadline_ms", "wait_ms"),
    [(True, 10_000, 4000), (False, 10_000, 1200), (True, 2000, 1750), (True, 100, 50), (True, 0, 50)],
)
async def test_patience(rd: bool, deadline_ms: int, wait_ms: int) -> None:
    """Stubs wait longer than resolvers, nobody longer than the query's deadline allows."""
    model = Model()
    await front(model).answer(query("what.llm.example.", rd=rd), item(deadline_ms=deadline_ms))
    assert model.asked[0].wait_ms == wait_ms


async def test_silent_actor_is_pending_in_time() -> None:
    """An actor that does not answer gives a pending answer before the query's own deadline."""

    async def silent(_: bytes) -> bytes:
        await asyncio.sleep(30)
        return b""

    started = time.monotonic()
    answer = await front(silent).answer(query("what.is.rust."), item(deadline_ms=500))
    assert time.monotonic() - started < 0.5
    assert text(answer) == "pending: ask again in 5 s"
    assert (answer.flags, parsed(answer).answer[0].ttl) == (OURS, 1)


async def test_dead_actor_is_told() -> None:
    """An actor that dies, or answers nonsense, gives a text with TTL 1, not an exception."""

    async def dead(_: bytes) -> bytes:
        raise RuntimeError("ActorDiedError")

    async def nonsense(_: bytes) -> bytes:
        return b"\xc1"

    for ask in (dead, nonsense):
        answer = await front(ask).answer(query("what.is.rust."), item())
        assert text(answer) == "error: restarting, ask again"
        assert (answer.flags, parsed(answer).answer[0].ttl, answer.ede) == (OURS, 1, Ede.NOT_READY)


async def test_long_answers_are_one_record_of_4096_octets() -> None:
    """A longer text is cut on a character with an ellipsis; TC over UDP is the ingress's to make."""
    model = Model(AskResult(Kind.ANSWER, "ü" * 9000, 300))
    answer = await front(model).answer(query("what.is.rust."), item())
    body = text(answer)
    assert 4094 <= len(body.encode()) <= 4096
    assert body.endswith(" ...")


async def test_longest_prompts_are_bounded() -> None:
    """A name whose normal form grows beyond the bound is cut, not refused."""
    model = Model()
    name = ".".join(["ﷺ" * 21] * 3)
    await front(model).answer(query(name + "."), item())
    assert 1000 < len(model.asked[0].prompt) <= 1024


async def test_trace_context_goes_along() -> None:
    """The actor gets the trace of a sampled query."""
    model = Model()
    await front(model).answer(query("a."), item(trace_id=b"t" * 16, span_id=b"s" * 8, trace_flags=1))
    asked = model.asked[0]
    assert (asked.trace_id, asked.span_id, asked.trace_flags) == (b"t" * 16, b"s" * 8, 1)


async def test_a_new_front_counts_on() -> None:
    """A front made anew after a reload shares its counter: no series stands twice in /metrics."""
    metrics = Metrics()
    for _ in range(3):
        await LLMFront(LLMConfig(), Model(), metrics=metrics).answer(query("what.is.rust."), item())
    (family,) = metrics.families()
    assert [(sample.labels, sample.value) for sample in family.samples] == [({"kind": "answer"}, 3.0)]
