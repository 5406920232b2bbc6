"""The forwarder on real sockets against upstreams that are slow, silent, lying, truncating, refusing, dead or garbage.

Invariant: a question gets the right answer from somebody, or a typed error; never an answer out of a bad reply.
"""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from raydns.actors.query.budget import Budget, BudgetExhausted, DeadlinePassed
from raydns.actors.query.forward.breaker import State
from raydns.actors.query.forward.faults import Fault, UpstreamFailed
from raydns.actors.query.forward.forwarder import Forwarder, Result
from raydns.actors.query.forward.message import Question
from raydns.schemas import facts
from raydns.schemas.config import Config
from tests.actors.query.kit import (
    HERE,
    A,
    Script,
    ScriptedUpstream,
    config,
    forwarding,
    good,
    name,
    question_of,
    record,
    response,
    until,
)

RIGHT = b"\xc0\x00\x02\x01"
WRONG = b"\x06\x06\x06\x06"


def budget(seconds: float = 5.0, queries: int = 128) -> Budget:
    """A budget as a client query has it."""
    return Budget(queries, 100_000, 11, time.monotonic() + seconds)


async def ask(forwarder: Forwarder, text: str, purse: Budget | None = None, qtype: int = A) -> Result:
    """Asks the rule of the name."""
    rule = forwarder.match(name(text))
    assert rule is not None
    return await forwarder.resolve(rule, Question(name(text), qtype), purse or budget())


def addresses(result: Result) -> tuple[bytes, ...]:
    """The addresses of an answer."""
    return facts.decode(result.reply.facts).addresses


def healthy(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """The right answer, at once."""
    return [(0.0, good(query))]


def silent(_: bytes, transport: str) -> list[tuple[float, bytes]] | None:
    """Nothing, ever."""
    return []


def slow(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """The right answer, too late to be of use."""
    return [(3.5, good(query))]


def wrong_id(query: bytes, transport: str) -> list[tuple[float, bytes]] | None:
    """Another ID, each time; closes TCP."""
    ident = (int.from_bytes(query[:2], "big") ^ 0x5555).to_bytes(2, "big")
    return [(0.0, ident + good(query, WRONG)[2:])] * 3 if transport == "udp" else None


def wrong_question(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """The right ID, and an answer to a question that nobody asked."""
    other = name("www.bank.example.") + question_of(query)[-4:]
    return [(0.0, response(query[:2], other, [record(HERE, A, WRONG)]))]


def out_of_bailiwick(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """The right question, and records of somebody else's."""
    return [(0.0, response(query[:2], question_of(query), [record(name("www.bank.example."), A, WRONG)]))]


def always_truncating(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """TC over UDP and over TCP."""
    return [(0.0, response(query[:2], question_of(query), flags=0x8380))]


def refusing(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """REFUSED to everything."""
    return [(0.0, response(query[:2], question_of(query), rcode=5))]


def failing(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """SERVFAIL to everything."""
    return [(0.0, response(query[:2], question_of(query), rcode=2))]


def garbage(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """The right ID in front of noise."""
    return [(0.0, query[:2] + b"\x81\x80" + random.Random(query).randbytes(60))]


def malformed(query: bytes, _: str) -> list[tuple[float, bytes]]:
    """The right question, and half a record."""
    return [(0.0, response(query[:2], question_of(query), [record(HERE, A, RIGHT)])[:-14])]


BAD = [
    silent,
    slow,
    wrong_id,
    wrong_question,
    out_of_bailiwick,
    always_truncating,
    refusing,
    failing,
    garbage,
    malformed,
]


async def open_it(forwarder: Forwarder, bad: ScriptedUpstream) -> None:
    """Asks new names until the bad upstream's breaker opens; each of them must get the right answer."""
    state = next(s.state for s in forwarder.servers() if s.address.port == bad.port)
    state.srtt = 0.0001  # so that the bad one is asked first
    for at in range(12):
        results = await asyncio.gather(*(ask(forwarder, f"n{at}-{n}.example.") for n in range(5)))
        assert {addresses(result) for result in results} == {(RIGHT,)}
        if state.breaker.state is State.OPEN:
            return
        state.srtt = 0.0001
        await asyncio.sleep(0.05)
    await until(lambda: state.breaker.state is State.OPEN, 4.0)


@pytest.mark.parametrize("script", BAD, ids=lambda s: s.__name__)
async def test_beside_a_bad_upstream_the_other_serves(script: Script) -> None:
    """Every question is answered rightly by the healthy one, the bad one's breaker opens, and then it is left alone."""
    bad, fine = await ScriptedUpstream(script).start(), await ScriptedUpstream(healthy).start()
    try:
        async with forwarding(config((".", [bad.address, fine.address]))) as forwarder:
            await ask(forwarder, "first.example.")
            await open_it(forwarder, bad)
            before = len(bad.queries)
            for n in range(20):
                assert addresses(await ask(forwarder, f"after{n}.example.")) == (RIGHT,)
            assert len(bad.queries) == before
    finally:
        await bad.stop()
        await fine.stop()


@pytest.mark.parametrize(
    "script",
    [wrong_question, out_of_bailiwick, always_truncating, refusing, failing, malformed],
    ids=lambda s: s.__name__,
)
async def test_a_bad_upstream_alone_gives_a_typed_error(script: Script) -> None:
    """Nothing that it says becomes an answer; the error says which upstream failed, and how."""
    bad = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [bad.address]), timeout_s=1.5)) as forwarder:
            with pytest.raises(UpstreamFailed) as caught:
                await ask(forwarder, "a.example.")
            assert bad.address in caught.value.where
            assert not caught.value.ours
    finally:
        await bad.stop()


async def test_a_dead_upstream_is_noticed_at_once_and_comes_back() -> None:
    """A port where nobody listens costs no time-out; the breaker opens; once it is back a probe closes it."""
    fine, dead = await ScriptedUpstream(healthy).start(), await ScriptedUpstream(healthy).start()
    address, port = dead.address, dead.port
    await dead.stop()
    conf = config((".", [address, fine.address]), breaker={"open_s": 0.3})
    async with forwarding(conf) as forwarder:
        await ask(forwarder, "first.example.")
        await open_it(forwarder, dead)
        back = await ScriptedUpstream(healthy).start(port=port)
        state = next(s.state for s in forwarder.servers() if s.address.port == port)
        began = time.monotonic()
        while state.breaker.state is not State.CLOSED:
            assert time.monotonic() - began < 30
            assert addresses(await ask(forwarder, f"r{time.monotonic()}.example.")) == (RIGHT,)
            await asyncio.sleep(0.01)
        assert time.monotonic() - began < 5
        await back.stop()
    await fine.stop()


async def test_alone_and_dead_fails_fast() -> None:
    """With a dead upstream only, the error comes after its attempts, not after its time."""
    dead = await ScriptedUpstream(healthy).start()
    await dead.stop()
    async with forwarding(config((".", [dead.address]))) as forwarder:
        began = time.monotonic()
        with pytest.raises(UpstreamFailed) as caught:
            await ask(forwarder, "a.example.")
        assert caught.value.fault is Fault.UNREACHABLE
        assert time.monotonic() - began < 2


async def test_truncation_leads_to_tcp_and_the_connection_is_reused() -> None:
    """TC over UDP is followed by TCP, whose connection serves the next ones too (RFC 7766)."""

    def script(query: bytes, transport: str) -> list[tuple[float, bytes]]:
        return always_truncating(query, transport) if transport == "udp" else healthy(query, transport)

    upstream = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [upstream.address]), attempts=1)) as forwarder:
            for n in range(5):
                assert addresses(await ask(forwarder, f"n{n}.example.")) == (RIGHT,)
            await asyncio.gather(*(ask(forwarder, f"p{n}.example.") for n in range(20)))
            assert forwarder.servers()[0].tcp.opened == 1
            assert [t for t, _ in upstream.queries].count("tcp") == 25
    finally:
        await upstream.stop()


async def test_a_closed_connection_is_made_anew() -> None:
    """A server that closes an idle connection costs nobody an answer (RFC 7766 section 6.2.4)."""
    upstream = await ScriptedUpstream(healthy).start()
    conf = Config.model_validate(
        {
            "forward": {"rules": [{"suffix": ".", "upstreams": [{"address": upstream.address, "transport": "tcp"}]}]},
            "llm": {"enabled": False},
        }
    )
    try:
        async with forwarding(conf) as forwarder:
            assert addresses(await ask(forwarder, "a.example.")) == (RIGHT,)
            for writer in list(upstream._writers):
                writer.close()
            assert addresses(await ask(forwarder, "b.example.")) == (RIGHT,)
            assert forwarder.servers()[0].tcp.opened == 2
    finally:
        await upstream.stop()


async def test_ten_thousand_spoofed_replies_harm_nobody() -> None:
    """A flood of guesses for one name moves that name to TCP; it and all others get their right answers."""

    def script(query: bytes, transport: str) -> list[tuple[float, bytes]]:
        if b"victim" not in query.lower() or transport == "tcp":
            return healthy(query, transport)
        spoofed = good(query, WRONG)
        own = int.from_bytes(query[:2], "big")
        guesses = [g for g in range(10_001) if g != own][:10_000]
        return [(0.0, g.to_bytes(2, "big") + spoofed[2:]) for g in guesses]

    upstream = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [upstream.address]))) as forwarder:
            victim = asyncio.ensure_future(ask(forwarder, "victim.example."))
            others = await asyncio.gather(*(ask(forwarder, f"n{n}.example.") for n in range(100)))
            assert {addresses(result) for result in others} == {(RIGHT,)}
            assert addresses(await victim) == (RIGHT,)
            assert any(t == "tcp" for t, q in upstream.queries if b"victim" in q.lower())
            assert forwarder.servers()[0].state.breaker.state is State.CLOSED
            assert addresses(await ask(forwarder, "after.example.")) == (RIGHT,)
    finally:
        await upstream.stop()


async def test_a_hundred_broken_names_do_not_harm_the_others() -> None:
    """While 100 names hang, other names are answered as fast as ever, and the upstream stays in use."""

    def script(query: bytes, transport: str) -> list[tuple[float, bytes]]:
        return [] if b"broken" in query.lower() else healthy(query, transport)

    upstream = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [upstream.address]), timeout_s=2)) as forwarder:
            await ask(forwarder, "warm.example.")
            hanging = [asyncio.ensure_future(ask(forwarder, f"x.broken{n}.test.")) for n in range(100)]
            await asyncio.sleep(0)
            took = []
            for n in range(100):
                began = time.monotonic()
                assert addresses(await ask(forwarder, f"n{n}.example.")) == (RIGHT,)
                took.append(time.monotonic() - began)
            assert sorted(took)[90] < 0.25
            results = await asyncio.gather(*hanging, return_exceptions=True)
            assert all(isinstance(r, UpstreamFailed) for r in results)
            assert addresses(await ask(forwarder, "later.example.")) == (RIGHT,)
    finally:
        await upstream.stop()


async def test_a_flood_under_one_zone_leaves_room() -> None:
    """Random names below one zone get half of all flights at most; the rest is shed at once, as ours."""
    upstream = await ScriptedUpstream(silent).start()
    conf = config((".", [upstream.address]), timeout_s=1)
    conf = conf.model_copy(update={"query": conf.query.model_copy(update={"in_flight_max": 100})})
    try:
        async with forwarding(conf) as forwarder:
            flood = [asyncio.ensure_future(ask(forwarder, f"r{n}.flood.test.")) for n in range(200)]
            await until(lambda: forwarder.shed > 0)
            assert forwarder.in_flight == 50
            upstream.script = healthy
            assert addresses(await ask(forwarder, "a.example.")) == (RIGHT,)
            results = await asyncio.gather(*flood, return_exceptions=True)
            shed = [r for r in results if isinstance(r, UpstreamFailed) and r.fault is Fault.BUSY]
            assert len(shed) == 150
            assert all(r.ours for r in shed)
    finally:
        await upstream.stop()


async def test_equal_questions_are_one_exchange() -> None:
    """200 at once are one upstream query and 200 right answers."""

    def script(query: bytes, _: str) -> list[tuple[float, bytes]]:
        return [(0.05, good(query))]

    upstream = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [upstream.address]), attempts=1)) as forwarder:
            results = await asyncio.gather(*(ask(forwarder, "cold.example.") for _ in range(200)))
            assert {addresses(result) for result in results} == {(RIGHT,)}
            assert upstream.asked("cold.example.") == 1
            assert sum(result.joined for result in results) == 199
    finally:
        await upstream.stop()


async def test_who_joins_does_not_inherit_an_empty_purse() -> None:
    """A leader without budget or time fails alone; who joined leads a flight of its own."""
    upstream = await ScriptedUpstream(silent).start()
    try:
        async with forwarding(config((".", [upstream.address]))) as forwarder:
            leader = asyncio.ensure_future(ask(forwarder, "a.example.", budget(0.2)))
            await asyncio.sleep(0)
            joined = asyncio.ensure_future(ask(forwarder, "a.example."))
            await asyncio.sleep(0.05)
            upstream.script = healthy
            with pytest.raises(DeadlinePassed):
                await leader
            assert addresses(await joined) == (RIGHT,)
    finally:
        await upstream.stop()


async def test_nothing_is_started_after_the_deadline() -> None:
    """A deadline that has passed, and an empty budget, send nothing."""
    upstream = await ScriptedUpstream(healthy).start()
    try:
        async with forwarding(config((".", [upstream.address]))) as forwarder:
            with pytest.raises(DeadlinePassed):
                await ask(forwarder, "a.example.", budget(0.0))
            with pytest.raises(BudgetExhausted):
                await ask(forwarder, "a.example.", budget(queries=0))
            assert not upstream.queries
    finally:
        await upstream.stop()


async def test_a_server_that_changes_case_is_learned() -> None:
    """It is asked over TCP the first time, and without random case from then on."""

    def script(query: bytes, _: str) -> list[tuple[float, bytes]]:
        question = question_of(query)
        lowered = question[:-4].lower() + question[-4:]
        return [(0.0, response(query[:2], lowered, [record(HERE, A, RIGHT)]))]

    upstream = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [upstream.address]), attempts=1)) as forwarder:
            assert addresses(await ask(forwarder, "somelongname.example.")) == (RIGHT,)
            assert [t for t, _ in upstream.queries] == ["udp", "tcp"]
            assert not forwarder.servers()[0].state.case_random
            assert addresses(await ask(forwarder, "anotherlongname.example.")) == (RIGHT,)
            assert [t for t, _ in upstream.queries] == ["udp", "tcp", "udp"]
    finally:
        await upstream.stop()


async def test_a_server_without_edns_is_learned() -> None:
    """FORMERR to OPT is followed by the same without it, and OPT is left out from then on (RFC 6891 section 7)."""

    def script(query: bytes, _: str) -> list[tuple[float, bytes]]:
        if query[11]:
            return [(0.0, response(query[:2], question_of(query), additional=(), rcode=1))]
        return [(0.0, response(query[:2], question_of(query), [record(HERE, A, RIGHT)], additional=()))]

    upstream = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [upstream.address]), attempts=1)) as forwarder:
            assert addresses(await ask(forwarder, "a.example.")) == (RIGHT,)
            assert addresses(await ask(forwarder, "b.example.")) == (RIGHT,)
            assert [q[11] for _, q in upstream.queries] == [1, 0, 0]
    finally:
        await upstream.stop()


async def test_ports_and_ids_are_random() -> None:
    """Queries come from many ports within the range, with many IDs and many cases of the same letters."""
    upstream = await ScriptedUpstream(healthy).start()
    try:
        async with forwarding(
            config((".", [upstream.address]), attempts=1, port_min=20_000, port_max=50_000)
        ) as forwarder:
            for n in range(200):
                await ask(forwarder, f"n{n}.example.")
            assert 20 < len(upstream.sources) <= 32
            assert all(20_000 <= port <= 50_000 for port in upstream.sources)
            idents = [q[:2] for _, q in upstream.queries]
            assert len(set(idents)) > 190
            cases = {q[12:].split(b"\x00")[0] for _, q in upstream.queries if b"EXAMPLE".lower() in q.lower()}
            assert len(cases) > 190
            assert forwarder.servers()[0].udp.open_sockets <= 32
    finally:
        await upstream.stop()


async def test_octets_are_counted() -> None:
    """A name whose answers are larger than one client query may receive fails as ours."""
    big = [record(HERE, 16, b"\xff" + bytes(255)) for _ in range(4)]

    def script(query: bytes, _: str) -> list[tuple[float, bytes]]:
        return [(0.0, response(query[:2], question_of(query), big, rcode=2))]

    upstream = await ScriptedUpstream(script).start()
    second = await ScriptedUpstream(script).start()
    try:
        async with forwarding(config((".", [upstream.address, second.address]))) as forwarder:
            purse = Budget(128, 1000, 11, time.monotonic() + 5)
            with pytest.raises(BudgetExhausted):
                await ask(forwarder, "a.example.", purse, 16)
            assert len(upstream.queries) + len(second.queries) == 1
    finally:
        await upstream.stop()
        await second.stop()


async def test_a_new_configuration_keeps_flights_and_knowledge() -> None:
    """A reload during a flight loses nothing; what is known of an upstream that stays is kept; others are closed."""

    def script(query: bytes, _: str) -> list[tuple[float, bytes]]:
        return [(0.2, good(query))]

    one, two = await ScriptedUpstream(script).start(), await ScriptedUpstream(healthy).start()
    try:
        async with forwarding(config((".", [one.address]), attempts=1)) as forwarder:
            flight = asyncio.ensure_future(ask(forwarder, "a.example."))
            await until(lambda: bool(one.queries))
            forwarder.update(config((".", [two.address]), attempts=1), forwarder._own)
            assert addresses(await flight) == (RIGHT,)
            await ask(forwarder, "b.example.")
            state = forwarder.servers()[0].state
            forwarder.update(config((".", [two.address]), ("corp.", [two.address]), attempts=1), forwarder._own)
            await ask(forwarder, "c.corp.")
            assert [s.state for s in forwarder.servers()] == [state]
            assert state.samples == 2
            assert not forwarder._closing
    finally:
        await one.stop()
        await two.stop()
