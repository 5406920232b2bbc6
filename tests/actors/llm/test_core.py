"""Single flight, memory, waiting and the gate, with a scripted provider and a clock turned by hand."""

from __future__ import annotations

import asyncio

import pytest

from raydns.actors.llm.core import EMBEDDED_PROMPT, FALLBACK_TTL_S, LLMCore
from raydns.actors.llm.faults import CONSEQUENCES, Fault, ProviderError
from raydns.actors.llm.limits import Share
from raydns.actors.llm.messages import (
    AskRequest,
    AskResult,
    Kind,
    decode_request,
    decode_result,
    encode,
)
from raydns.schemas.config.llm import LLMConfig
from raydns.schemas.errors import WireError

from .harness import Scripted, Time, ask, make_core, wide_limits


async def settle() -> None:
    """Lets tasks that can run do so."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_equal_questions_share_one_call() -> None:
    """200 equal questions of 200 clients cost one call, and all get its answer."""
    provider = Scripted()
    provider.gate.clear()
    core = make_core(provider, Time())
    asking = [asyncio.create_task(core.ask(ask(who=number))) for number in range(200)]
    await settle()
    assert (core.in_flight, core.waiters) == (1, 200)
    provider.gate.set()
    results = await asyncio.gather(*asking)
    assert provider.calls == 1
    assert {r.text for r in results} == {"text"}
    assert sorted(r.source for r in results) == ["joined"] * 199 + ["miss"]
    assert (core.in_flight, core.waiters) == (0, 0)


async def test_failing_then_healthy() -> None:
    """A failure frees the key: after its short memory the next question makes a new call, which succeeds."""
    provider, time = Scripted(), Time()
    provider.error = ProviderError(Fault.SERVER)
    core = make_core(provider, time)
    results = await asyncio.gather(*(core.ask(ask(who=n)) for n in range(20)))
    assert {r.kind for r in results} == {Kind.ERROR}
    assert provider.calls == 1
    provider.error = None
    time.forward(3.0)
    remembered = await core.ask(ask())
    assert (remembered.kind, remembered.ttl, provider.calls) == (Kind.ERROR, 2, 1)
    time.forward(2.1)
    assert (await core.ask(ask())).kind is Kind.ANSWER
    assert provider.calls == 2


async def test_call_survives_its_waiters() -> None:
    """A waiter that is cancelled, even the one that led, ends nothing; the answer is kept for the next."""
    provider = Scripted()
    provider.gate.clear()
    core = make_core(provider, Time())
    leader = asyncio.create_task(core.ask(ask()))
    await settle()
    leader.cancel()
    await settle()
    assert (core.in_flight, core.waiters) == (1, 0)
    provider.gate.set()
    await settle()
    result = await core.ask(ask(who=2))
    assert (result.text, result.source, provider.calls) == ("text", "hit", 1)


async def test_bug_in_a_provider_is_told_and_frees_the_key() -> None:
    """An exception that nobody foresaw becomes an error text, and the key is free again."""

    class Broken(Scripted):
        async def complete(self, *_: object) -> object:  # type: ignore[override]
            raise ZeroDivisionError

    core = make_core(Broken(), Time())
    result = await core.ask(ask())
    assert (result.kind, result.text) == (Kind.ERROR, "error: internal error")
    assert core.in_flight == 0


async def test_waiters_are_bounded() -> None:
    """Beyond the bound a question is told pending at once; the call goes on."""
    provider = Scripted()
    provider.gate.clear()
    core = make_core(provider, Time(), LLMConfig(limits=wide_limits(waiters_max=3)))
    asking = [asyncio.create_task(core.ask(ask(who=number))) for number in range(3)]
    await settle()
    extra = await asyncio.wait_for(core.ask(ask(who=9)), 1.0)
    assert extra.kind is Kind.PENDING
    provider.gate.set()
    assert {r.kind for r in await asyncio.gather(*asking)} == {Kind.ANSWER}


async def test_calls_in_flight_are_bounded() -> None:
    """Beyond the bound another prompt is told busy and costs nothing."""
    provider = Scripted()
    provider.gate.clear()
    core = make_core(provider, Time(), LLMConfig(limits=wide_limits(in_flight_max=2)))
    asking = [asyncio.create_task(core.ask(ask(f"p{number}"))) for number in range(2)]
    await settle()
    busy = await core.ask(ask("p3"))
    assert (busy.kind, busy.text) == (Kind.BUSY, "error: busy, ask again in 2 s")
    provider.gate.set()
    await asyncio.gather(*asking)
    assert provider.calls == 2


async def test_answers_are_kept_for_their_time_and_counted_down() -> None:
    """TTL is ``answer_ttl_s`` until less than that is left; after ``cache_ttl_s`` the model is asked again."""
    provider, time = Scripted(), Time()
    core = make_core(provider, time)
    assert (await core.ask(ask())).ttl == 300
    time.forward(3_500.0)
    assert (await core.ask(ask())).ttl == 100
    time.forward(100.0)
    assert (await core.ask(ask())).source == "miss"
    assert provider.calls == 2


@pytest.mark.parametrize(("entries", "size", "kept"), [(3, 1 << 20, 3), (1000, 65_536, 12)])
async def test_memory_is_bounded(entries: int, size: int, kept: int) -> None:
    """Kept answers are bounded in number and in octets; the least recently used goes first."""
    provider = Scripted()
    provider.text = "x" * 5000
    config = LLMConfig(cache_entries=entries, cache_bytes=size, limits=wide_limits())
    core = make_core(provider, Time(), config)
    for number in range(20):
        await core.ask(ask(f"p{number}"))
    assert len(core.answers) == kept
    assert core.answers.size <= size
    assert (await core.ask(ask("p19"))).source == "hit"
    assert (await core.ask(ask("p0"))).source == "miss"


async def test_fallback_is_labelled_and_short_lived() -> None:
    """The embedded model stands in only where that is configured, labelled, and not for long."""
    main, small, time = Scripted(), Scripted(), Time()
    small.name = "embedded"
    main.error = ProviderError(Fault.RATE_LIMITED, retry_after_s=60)
    core = make_core(main, time, LLMConfig(fallback="embedded", limits=wide_limits()), embedded=small)
    result = await core.ask(ask())
    assert (result.text, result.provider) == ("[offline demo] text", "embedded")
    assert result.ttl == FALLBACK_TTL_S
    await core.ask(ask("while paused"))
    assert (main.calls, small.calls) == (1, 2)
    main.error = None
    time.forward(61.0)
    assert (await core.ask(ask())).text == "text"


async def test_no_silent_stand_in() -> None:
    """Where a key is configured and cannot be used, the answer says so and no model is asked."""
    core = make_core(None, Time())
    core.set_providers(Scripted(), None, key_problem=True)
    assert (await core.ask(ask())).text == "error: LLM not configured"


async def test_embedded_gets_a_sentence() -> None:
    """The small model is asked with a sentence and a short system prompt; an operator's own prompt wins."""
    small = Scripted()
    seen = []

    class Recording(Scripted):
        name = "embedded"

        async def complete(self, call, on_text, spend):  # type: ignore[no-untyped-def]
            seen.append(call)
            return await small.complete(call, on_text, spend)

    core = make_core(None, Time(), embedded=Recording())
    await core.ask(ask("what is the capital of france"))
    assert (seen[0].prompt, seen[0].system_prompt) == ("What is the capital of france?", EMBEDDED_PROMPT)
    assert (seen[0].temperature, seen[0].max_tokens) == (0.0, 80)
    core.configure(LLMConfig(system_prompt="Be rude.", limits=wide_limits()), Share())
    await core.ask(ask("is it so?"))
    assert (seen[1].prompt, seen[1].system_prompt) == ("Is it so?", "Be rude.")


async def test_changed_providers_forget_old_answers() -> None:
    """Another model's answers are not told as this one's."""
    first, second = Scripted(), Scripted()
    second.text = "second"
    core = make_core(first, Time())
    await core.ask(ask())
    core.set_providers(second, None)
    assert (await core.ask(ask())).text == "second"


async def test_drain_lets_calls_end() -> None:
    """A draining core starts no call, and says whether those in flight ended."""
    provider = Scripted()
    provider.gate.clear()
    core = make_core(provider, Time())
    asking = asyncio.create_task(core.ask(ask()))
    await settle()
    assert not await core.drain(0.01)
    assert (await core.ask(ask("new"))).kind is Kind.BUSY
    provider.gate.set()
    assert await core.drain(1.0)
    assert (await asking).kind is Kind.ANSWER


async def test_close_tells_those_who_wait() -> None:
    """A core that is closed leaves nobody waiting."""
    provider = Scripted()
    provider.gate.clear()
    core = make_core(provider, Time())
    asking = asyncio.create_task(core.ask(ask()))
    await settle()
    await core.close()
    assert (await asking).kind is Kind.BUSY


async def test_prompts_are_logged_only_if_wanted(caplog: pytest.LogCaptureFixture) -> None:
    """By default a log line holds a salted hash; two actors hash alike prompts differently."""
    caplog.set_level("INFO")
    cores: list[LLMCore] = [make_core(Scripted(), Time()) for _ in range(2)]
    for core in cores:
        await core.ask(ask("my secret question"))
    hashes = {vars(record)["prompt"] for record in caplog.records}
    assert len(hashes) == 2
    assert "my secret question" not in str(hashes)
    caplog.clear()
    await make_core(Scripted(), Time(), LLMConfig(log_prompts=True, limits=wide_limits())).ask(ask("open question"))
    assert vars(caplog.records[-1])["prompt"] == "open question"


async def test_metrics_name_no_prompt() -> None:
    """Families follow the naming rule and their labels hold neither prompt nor client."""
    core = make_core(Scripted(), Time())
    await core.ask(ask("a very private prompt"))
    await core.ask(ask("a very private prompt"))
    families = {family.name: family for family in core.measures.families()}
    assert all(name.startswith("raydns_llm_") for name in families)
    assert all(family.help.endswith(".") for family in families.values())
    results = {s.labels["result"]: s.value for s in families["raydns_llm_queries_total"].samples}
    assert results == {"miss": 1.0, "hit": 1.0}
    sample = families["raydns_llm_upstream_requests_total"].samples[0]
    assert (sample.labels, sample.value) == ({"provider": "openai", "outcome": "ok"}, 1.0)
    assert "private" not in repr(families)


def test_every_fault_has_a_consequence() -> None:
    """The table is complete, and each error survives pickling with its fault."""
    import pickle

    for fault in Fault:
        assert CONSEQUENCES[fault].text
        error = pickle.loads(pickle.dumps(ProviderError(fault, retry_after_s=3, text_came=True)))
        assert (error.fault, error.retry_after_s, error.text_came) == (fault, 3, True)


def test_messages_cross_and_are_checked() -> None:
    """Requests and results survive their encoding; malformed ones are a ``WireError``."""
    request = ask("übung", wait_ms=7)
    assert decode_request(encode(request)) == request
    result = AskResult(Kind.PENDING, "pending", 1, 14, final=False)
    assert decode_result(encode(result)) == result
    bad = [b"", b"\x00", b"\xff" * 40, encode(result), encode(AskRequest(b"short", "p", bytes(16), 1))]
    bad += [encode(AskRequest(bytes(32), "", bytes(16), 1)), encode(AskRequest(bytes(32), "p" * 2000, bytes(16), 1))]
    bad += [encode(AskRequest(bytes(32), "p", b"", 1)), encode(AskRequest(bytes(32), "p", bytes(16), 10**9))]
    for data in bad:
        with pytest.raises(WireError):
            decode_request(data)
    with pytest.raises(WireError):
        decode_result(b"nonsense")
