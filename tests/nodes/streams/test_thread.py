"""The loop in a thread: results, errors, stopping."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from raydns.nodes.streams import secret
from raydns.nodes.streams.requests import Requests
from raydns.nodes.streams.server import StreamServer, Tls
from raydns.nodes.streams.thread import LoopThread
from raydns.schemas.batch import QueryItem
from tests.nodes.streams.conftest import MESSAGE, Collector, echo, endpoint, until


def test_run_gives_results_and_errors() -> None:
    """What a coroutine returns or raises comes out of run; a time-out cancels it."""
    thread = LoopThread("test")
    cancelled = threading.Event()

    async def who() -> str:
        return threading.current_thread().name

    async def broken() -> None:
        raise ValueError("no")

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    assert thread.run(who()) == "test"
    with pytest.raises(ValueError, match="no"):
        thread.run(broken())
    with pytest.raises(TimeoutError):
        thread.run(forever(), timeout_s=0.05)
    assert cancelled.wait(5)
    assert thread.stop()


def test_spawn_and_call_soon() -> None:
    """Spawned coroutines run, their errors are logged and harm nothing; functions run in the loop's thread."""
    thread = LoopThread("test")
    ran = threading.Event()
    names: list[str] = []

    async def broken() -> None:
        raise ValueError("no")

    async def good() -> None:
        ran.set()

    thread.spawn(broken())
    thread.call_soon(lambda: names.append(threading.current_thread().name))
    thread.spawn(good())
    assert ran.wait(5)
    assert names == ["test"]
    assert thread.stop()


def test_stop_cancels_what_runs_and_is_final() -> None:
    """Stop ends tasks with cancellation, twice is once, and afterwards nothing runs any more."""
    thread = LoopThread("test")
    started, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    thread.spawn(forever())
    assert started.wait(5)
    assert thread.stop()
    assert ended.is_set()
    assert thread.stop()
    thread.call_soon(lambda: None)
    thread.spawn(forever())
    with pytest.raises(RuntimeError, match="stopped"):
        thread.run(forever())


def test_run_from_its_own_thread_is_refused() -> None:
    """Waiting for oneself would never end: it is an error at once."""
    thread = LoopThread("test")

    async def outer() -> None:
        thread.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="itself"):
        thread.run(outer(), timeout_s=5)
    assert thread.stop()


def test_streams_in_loop_threads(short_dir: Path) -> None:
    """As actors run them, each end in a thread with uvloop: Unix socket and TLS carry 2,000 questions each."""
    key = bytes(range(32))
    one, two = LoopThread("server"), LoopThread("client")
    assert type(one.loop).__module__.startswith("uvloop")

    async def serve() -> StreamServer:
        server = StreamServer(
            echo, path=short_dir / "q.sock", tls=Tls("127.0.0.1", 0, secret.server_context(key)), identity="query:0.g1"
        )
        await server.start()
        return server

    async def ask(machine: str, port: int, context: secret.ClusterContext) -> tuple[Collector, str]:
        client = Requests(endpoint(short_dir / "q.sock", "here", port), machine, ssl_context=context)
        client.start()
        heard = Collector()
        deadline_ms = 8000 if context.pins == secret.client_context(key).pins or machine == "here" else 300
        for number in range(2000):
            client.send(QueryItem(0, MESSAGE + number.to_bytes(4, "big"), deadline_ms), heard.done(number))
        await until(lambda: heard.count == 2000)
        await client.close()
        return heard, client.last_problem

    server = one.run(serve())
    good, wrong = secret.client_context(key), secret.client_context(bytes(32))
    for machine in ("here", "elsewhere"):
        heard, _ = two.run(ask(machine, server.port, good), 30)
        assert all(a is not None and a.message == MESSAGE + n.to_bytes(4, "big") for n, (a,) in heard.answers.items())
    heard, problem = two.run(ask("elsewhere", server.port, wrong), 30)
    assert all(answers == [None] for answers in heard.answers.values())
    assert "SSL" in problem or "certificate" in problem
    assert server.queries == 4000
    one.run(server.close())
    assert not (short_dir / "q.sock").exists()
    assert one.stop()
    assert two.stop()
