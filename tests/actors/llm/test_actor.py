"""The actor's shell without a cluster: configuration from disk, reload, span, metrics, the day's file."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from raydns.actors.llm.actor import LLMActor, span_attributes
from raydns.actors.llm.messages import AskRequest, AskResult, Kind, decode_result, encode
from raydns.nodes.known import Known
from raydns.nodes.metrics import Family
from raydns.nodes.paths import StateDir
from raydns.schemas.cluster import Endpoint, RingTable, Scale, Snapshot, Version
from raydns.schemas.config import Config
from raydns.schemas.errors import WireError

from . import fake_provider
from .fake_provider import KEY, TEXT
from .harness import ask, wide_limits

ENDPOINT = msgspec.msgpack.encode(Endpoint("llm", 0, 1, "node", "machine", ""))


@pytest.fixture
def state_dir() -> Iterator[Path]:
    """A short path, since Unix sockets live below it."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    StateDir(path).create()
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def root_logging() -> Iterator[None]:
    """The actor sets the process's log up; a test must not keep that."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def keep(state_dir: Path, number: int, **llm: Any) -> None:
    """Writes a snapshot with these options of ``llm``."""
    fields = {"provider": "openai", "limits": wide_limits().model_dump(), **llm}
    config = Config.model_validate({"llm": fields})
    Known(StateDir(state_dir)).save(
        Snapshot(Version(1, number), config.model_dump(mode="json"), [], [], RingTable(0, 0), [], [], Scale(1, 1, 1, 1))
    )


@asynccontextmanager
async def actor(state_dir: Path) -> AsyncIterator[LLMActor]:
    """An actor, drained in the end."""
    made = LLMActor(str(state_dir), ENDPOINT)
    try:
        yield made
    finally:
        await made.drain(0.5)


async def asked(made: LLMActor, request: AskRequest) -> AskResult:
    """Asks as a query actor does."""
    return decode_result(await made.ask(encode(request)))


async def test_asks_reloads_counts(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration comes from disk, a reload is followed, statistics, metrics and the day's file tell the calls."""
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    async with fake_provider.running() as fake, actor(state_dir) as idle:
        assert await idle.refresh() == 0, "nothing is known yet: defaults"
        keep(state_dir, 1, base_url=fake.url, models=["ok"])
        async with actor(state_dir) as made:
            assert await made.ready()
            assert (await asked(made, ask())).text == TEXT
            keep(state_dir, 2, base_url=fake.url, models=["status:403"])
            assert await made.refresh() == Version(1, 2).packed
            assert (await asked(made, ask("other"))).text == "error: refused by provider"
            statistics = await made.statistics()
            assert (statistics["calls"], statistics["queries"], statistics["in_flight"]) == (2.0, 2.0, 0.0)
            families = msgspec.msgpack.decode(await made.metrics(), type=list[Family])
            assert {"raydns_llm_upstream_requests_total", "raydns_llm_embedded_rss_bytes"} <= {f.name for f in families}
            assert KEY not in repr(families) + repr(vars(made))
        kept = json.loads((state_dir / "llm" / "0" / "quota.json").read_text())
        assert kept == {"day": int(time.time() // 86_400), "calls": 2}
    for path in state_dir.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes()


async def test_malformed_request(state_dir: Path) -> None:
    """A request that is none is a ``WireError`` and nothing else happens."""
    keep(state_dir, 1)
    async with actor(state_dir) as made:
        with pytest.raises(WireError):
            await made.ask(b"nonsense")


async def test_unusable_key_file_is_told(state_dir: Path) -> None:
    """The actor runs and says that it is not configured, where the key file cannot be used."""
    keep(state_dir, 1, api_key_file="/nonexistent/key", provider="auto")
    async with actor(state_dir) as made:
        assert await made.ready()
        result = await asked(made, ask())
        assert (result.kind, result.text) == (Kind.ERROR, "error: LLM not configured")


async def test_span_only_when_sampled(state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sampled request gives one span under its parent, with GenAI attributes and without prompt or answer."""
    monkeypatch.setenv("OPENROUTER_API_KEY", KEY)
    async with fake_provider.running() as fake:
        keep(state_dir, 1, base_url=fake.url, models=["stream"])
        async with actor(state_dir) as made:
            spans: list[tuple[str, dict[str, Any]]] = []
            monkeypatch.setattr(made._tracer, "record", lambda name, **fields: spans.append((name, fields)))
            await asked(made, ask("private words"))
            assert not spans
            sampled = msgspec.structs.replace(
                ask("more private words"), trace_id=b"t" * 16, span_id=b"p" * 8, trace_flags=1
            )
            await asked(made, sampled)
            ((name, fields),) = spans
            assert name == "llm.answer"
            assert (fields["trace_id"], fields["parent_id"]) == (b"t" * 16, b"p" * 8)
            assert len(fields["span_id"]) == 8
            assert fields["end_us"] >= fields["start_us"]
            attributes = fields["attributes"]
            assert attributes["gen_ai.request.model"] == "stream"
            assert attributes["gen_ai.response.model"] == "stream-1"
            assert (attributes["gen_ai.usage.input_tokens"], attributes["gen_ai.usage.output_tokens"]) == (9, 4)
            assert "private" not in repr(fields)
            assert TEXT not in repr(fields)


def test_span_of_the_embedded_model() -> None:
    """The embedded model is named as that."""
    result = AskResult(Kind.ANSWER, "x", 1, provider="embedded", model="m")
    attributes = span_attributes(result, Config())
    assert attributes["gen_ai.request.model"] == "embedded"
    assert attributes["gen_ai.provider.name"] == "embedded"
