"""Every fault of llm.md 2.7: what the client reads, for how long, with which EDE, and what it cost."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from raydns.actors.llm.core import LLMCore
from raydns.actors.llm.limits import Share
from raydns.actors.llm.messages import AskResult, Kind
from raydns.schemas.config.llm import LLMConfig
from raydns.schemas.dns import Ede

from . import fake_provider
from .fake_provider import KEY, TEXT, FakeProvider
from .harness import Time, ask, http_provider, make_core, wide_limits


@asynccontextmanager
async def serving(model: str, *more: str, **changes: object) -> AsyncIterator[tuple[LLMCore, FakeProvider, Time]]:
    """A core before a fake provider whose scenario is the model's name."""
    async with fake_provider.running() as fake:
        config = LLMConfig.model_validate({"models": (model, *more), "limits": wide_limits(), **changes})
        time = Time()
        provider = http_provider(fake.url, config)
        core = make_core(provider, time, config)
        try:
            yield core, fake, time
        finally:
            await core.close()
            await provider.close()


@pytest.mark.parametrize(
    ("model", "text", "hits"),
    [
        ("ok", TEXT, 1),
        ("stream", TEXT, 1),
        ("e400reasoning", TEXT, 2),
        ("ctrl", "red bold / next line", 1),
        ("token", "answer: v=spf1 +all", 1),
        ("keepws", TEXT, 1),
        ("think", TEXT, 1),
        ("length", TEXT + " ...", 1),
        ("utf8split", "naive EUR5 cafe", 1),
        ("slow:0.05", TEXT, 1),
        ("drip:0.01", TEXT, 1),
    ],
)
async def test_answers(model: str, text: str, hits: int) -> None:
    """An answer, however it arrives, is one clean text with the configured TTL, kept for the next who asks."""
    async with serving(model) as (core, fake, time):
        result = await core.ask(ask())
        assert (result.kind, result.text, result.ttl, result.ede) == (Kind.ANSWER, text, 300, -1)
        assert fake.hits[model] == hits
        time.forward(10)
        again = await core.ask(ask(who=2))
        assert (again.text, again.source) == (text, "hit")
        assert fake.hits[model] == hits
        assert core.closed_gates() == {"openai": 0.0}


@pytest.mark.parametrize(
    ("model", "text", "ttl", "ede", "hits", "closed"),
    [
        ("r429", "error: provider is rate limiting, retry in 7 s", 5, Ede.NOT_READY, 1, True),
        ("r429:2", "error: provider is rate limiting, retry in 2 s", 2, Ede.NOT_READY, 1, True),
        ("r429:90000", "error: provider is rate limiting, retry in 300 s", 5, Ede.NOT_READY, 1, True),
        ("status:400", "error: provider did not accept the request", 5, Ede.OTHER, 2, False),
        ("status:401", "error: LLM not configured", 5, Ede.NOT_READY, 1, True),
        ("status:402", "error: provider quota used up, retry in 600 s", 5, Ede.NOT_READY, 1, True),
        ("status:403", "error: refused by provider", 5, Ede.PROHIBITED, 1, False),
        ("nosuch", "error: provider does not know the model", 5, Ede.OTHER, 1, False),
        ("status:408", "error: provider failed", 5, Ede.NO_REACHABLE_AUTHORITY, 2, False),
        ("status:500", "error: provider failed", 5, Ede.NO_REACHABLE_AUTHORITY, 2, False),
        ("status:503", "error: provider failed", 5, Ede.NO_REACHABLE_AUTHORITY, 2, False),
        ("err200:429", "error: provider is rate limiting, retry in 30 s", 5, Ede.NOT_READY, 1, True),
        ("err200:502", "error: provider failed", 5, Ede.NO_REACHABLE_AUTHORITY, 2, False),
        ("midsse:402", "error: provider quota used up, retry in 600 s", 5, Ede.NOT_READY, 1, True),
        ("cut:0", "error: provider unreachable", 5, Ede.NETWORK_ERROR, 2, False),
        ("nullc", "error: provider sent an empty answer", 5, Ede.INVALID_DATA, 1, False),
        ("nochoices", "error: provider sent no valid answer", 5, Ede.INVALID_DATA, 1, False),
        ("html", "error: provider sent no valid answer", 5, Ede.INVALID_DATA, 1, False),
        ("redirect", "error: provider sent no valid answer", 5, Ede.INVALID_DATA, 1, False),
        ("badjson", "error: provider sent no valid answer", 5, Ede.INVALID_DATA, 1, False),
        ("badsse", "error: provider sent no valid answer", 5, Ede.INVALID_DATA, 1, False),
    ],
)
async def test_failures(model: str, text: str, ttl: int, ede: int, hits: int, closed: bool) -> None:
    """Each fault has its own text, EDE and cost, and asking again at once costs nothing more."""
    async with serving(model) as (core, fake, _):
        result = await core.ask(ask())
        assert (result.kind, result.text, result.ttl, result.ede) == (Kind.ERROR, text, ttl, ede)
        assert fake.hits[model] == hits
        again = await core.ask(ask(who=2))
        assert again.text == text
        assert fake.hits[model] == hits
        assert core.closed_gates() == {"openai": float(closed)}
        other = await core.ask(ask("another prompt"))
        assert (fake.hits[model] == hits) is closed, other


async def test_retry_after_is_respected_and_ends() -> None:
    """After a 429 no prompt costs a request until the provider's time is over; then all works again."""
    async with serving("r429once") as (core, fake, time):
        assert (await core.ask(ask("one"))).text == "error: provider is rate limiting, retry in 3 s"
        time.forward(2.5)
        assert (await core.ask(ask("two"))).text == "error: provider is rate limiting, retry in 1 s"
        assert fake.hits["r429once"] == 1
        time.forward(1.0)
        assert (await core.ask(ask("two"))).text == TEXT
        assert (await core.ask(ask("one"))).text == TEXT


async def test_reset_header_alone() -> None:
    """A 429 that only says when its window resets pauses until then."""
    async with serving("r429reset") as (core, fake, time):
        assert (await core.ask(ask("one"))).kind is Kind.ERROR
        time.forward(18.0)
        await core.ask(ask("two"))
        assert fake.hits["r429reset"] == 1
        time.forward(3.0)
        await core.ask(ask("three"))
        assert fake.hits["r429reset"] == 2


async def test_unauthorised_until_reload() -> None:
    """A refused key is tried once; a day later still not, but after a reload it is."""
    async with serving("status:401") as (core, fake, time):
        await core.ask(ask("one"))
        time.forward(86_400.0)
        assert (await core.ask(ask("two"))).text == "error: LLM not configured"
        assert fake.hits["status:401"] == 1
        core.configure(LLMConfig(models=("ok",), limits=wide_limits()), Share())
        assert (await core.ask(ask("two"))).text == TEXT


async def test_forbidden_prompt_is_remembered_an_hour() -> None:
    """A prompt that the provider refuses is not asked again for an hour; others are."""
    async with serving("status:403") as (core, fake, time):
        await core.ask(ask("bad"))
        time.forward(3_500.0)
        assert (await core.ask(ask("bad"))).text == "error: refused by provider"
        assert fake.hits["status:403"] == 1
        time.forward(200.0)
        await core.ask(ask("bad"))
        assert fake.hits["status:403"] == 2


async def test_breaker_opens_and_tries_one() -> None:
    """Five failures in 30 s close the provider for 30 s; then one call tries, and its success opens it."""
    async with serving("status:503") as (core, fake, time):
        for number in range(5):
            assert (await core.ask(ask(f"p{number}"))).text == "error: provider failed"
        assert fake.hits["status:503"] == 10
        assert core.closed_gates() == {"openai": 1.0}
        assert (await core.ask(ask("p6"))).text == "error: provider failed"
        assert fake.hits["status:503"] == 10
        time.forward(31.0)
        await core.ask(ask("p7"))
        assert fake.hits["status:503"] == 12
        assert core.closed_gates() == {"openai": 1.0}, "the one that tried failed: closed again"


@pytest.mark.parametrize("model", ["midsse", "cut", "noend"])
async def test_cut_stream_tells_what_came(model: str) -> None:
    """A stream that breaks gives what came, marked, for five seconds, and is not kept."""
    async with serving(model) as (core, fake, _):
        result = await core.ask(ask())
        assert (result.kind, result.text, result.ttl) == (Kind.PARTIAL, "Half an ans ...(cut)", 5)
        assert result.final
        assert fake.hits[model] == 1
        await core.ask(ask())
        assert fake.hits[model] == 2


async def test_slow_first_token_is_pending_then_joined() -> None:
    """Who cannot wait reads pending with TTL 1; whoever asks again joins the same call and reads the answer."""
    async with serving("slow:0.4") as (core, fake, _):
        first = await core.ask(ask(wait_ms=50))
        assert (first.kind, first.text, first.ttl) == (Kind.PENDING, "pending: ask again in 5 s", 1)
        assert first.ede == Ede.NOT_READY
        second = await core.ask(ask(who=2))
        assert (second.kind, second.text, second.source) == (Kind.ANSWER, TEXT, "joined")
        assert fake.hits["slow:0.4"] == 1


async def test_dripping_is_told_in_part() -> None:
    """At the deadline the text so far is told, then the whole."""
    async with serving("drip:0.15") as (core, fake, _):
        first = await core.ask(ask(wait_ms=250))
        assert first.kind is Kind.PARTIAL
        assert first.text.startswith("Hello from")
        assert first.text.endswith(" ...(more soon, ask again)")
        assert (first.ttl, first.final) == (1, False)
        assert (await core.ask(ask())).text == TEXT
        assert fake.hits["drip:0.15"] == 1


async def test_hanging_provider() -> None:
    """A provider that never answers ends at the call's own time-out, once, and counts for the breaker."""
    async with serving("hang", total_timeout_s=0.3) as (core, fake, _):
        result = await core.ask(ask())
        assert (result.text, result.ede) == ("error: provider too slow", Ede.NO_REACHABLE_AUTHORITY)
        assert fake.hits["hang"] == 1


async def test_huge_answer_is_bounded() -> None:
    """A megabyte of text is read up to ``max_stored_bytes``, no further."""
    async with serving("huge", max_stored_bytes=2000) as (core, _, _):
        result = await core.ask(ask())
        assert result.kind is Kind.ANSWER
        assert 1900 < len(result.text) <= 2004
        assert result.text.endswith(" ...")


async def test_utf8_survives_segments() -> None:
    """A character split over TCP segments arrives whole where ASCII is not asked for."""
    async with serving("utf8split", ascii=False) as (core, _, _):
        assert (await core.ask(ask())).text == "naïve €5 😀 café"


async def test_reset_of_an_idle_connection_is_no_failure() -> None:
    """A pooled connection that the server resets costs a retry, not an answer (``rstidle``)."""
    async with fake_provider.resetting() as (url, answered):
        config = LLMConfig(models=("rstidle",), limits=wide_limits())
        provider = http_provider(url, config)
        core = make_core(provider, Time(), config)
        assert (await core.ask(ask("one"))).text == TEXT
        assert (await core.ask(ask("two"))).text == TEXT
        assert len(answered) == 2
        await provider.close()


async def test_nobody_listens() -> None:
    """A refused connection is said as that."""
    config = LLMConfig(limits=wide_limits())
    provider = http_provider("http://127.0.0.1:1/v1", config)
    core = make_core(provider, Time(), config)
    result = await core.ask(ask())
    assert (result.text, result.ede) == ("error: provider unreachable", Ede.NETWORK_ERROR)
    await provider.close()


async def test_models_are_tried_in_order() -> None:
    """A model that fails by itself hands on to the next; a key that is refused does not."""
    async with serving("status:503", "nullc", "ok") as (core, fake, _):
        result = await core.ask(ask())
        assert (result.text, result.model) == (TEXT, "ok-1")
        assert dict(fake.hits) == {"status:503": 2, "nullc": 1, "ok": 1}
    async with serving("status:401", "ok") as (core, fake, _):
        assert (await core.ask(ask())).text == "error: LLM not configured"
        assert fake.hits["ok"] == 0


async def test_reasoning_is_not_sent_twice_to_who_refuses_it() -> None:
    """A model that does not take ``reasoning`` costs a second request once, not for each prompt."""
    async with serving("e400reasoning") as (core, fake, _):
        await core.ask(ask("one"))
        await core.ask(ask("two"))
        assert fake.hits["e400reasoning"] == 3


async def test_request_is_what_the_interface_wants() -> None:
    """The key goes as Bearer, the prompt as the user's message, and no header tells more than that."""
    async with serving("stream") as (core, fake, _):
        await core.ask(ask("what is dns"))
        assert fake.headers[0]["Authorization"] == f"Bearer {KEY}"
        assert "HTTP-Referer" not in fake.headers[0]
        body = fake.bodies[0]
        assert body["messages"][-1] == {"role": "user", "content": "what is dns"}
        assert body["stream"] is True
        assert body["max_tokens"] == 350


async def test_the_key_is_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    """A planted key stands in no result, log, metric, repr or exception, whatever the provider does with it."""
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []
    for model in ("ok", "status:401", "status:500", "cut", "cut:0", "html", "badjson", "err200:502", "redirect"):
        async with serving(model, total_timeout_s=2.0) as (core, _, _):
            result: AskResult = await core.ask(ask())
            seen += [repr(result), repr(core.measures.families()), repr(vars(core)), repr(core._lines)]
            seen += [repr(vars(line.provider)) for line in core._lines]
    for record in caplog.records:
        seen += [record.getMessage(), repr({k: v for k, v in vars(record).items() if k != "args"})]
    assert KEY not in "".join(seen)
    assert "what is dns" not in "".join(r.getMessage() + repr(vars(r)) for r in caplog.records if "raydns" in r.name)
