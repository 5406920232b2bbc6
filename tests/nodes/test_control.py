"""Control sockets: calls, errors across processes, limits, and what a stranger may send."""

from __future__ import annotations

import asyncio
import shutil
import socket
import stat
import struct
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raydns.nodes import control
from raydns.nodes.control import ControlServer, call, call_sync
from raydns.schemas.errors import (
    CommandError,
    FrameError,
    RaydnsError,
    StateError,
    UnreachableError,
    catalogue,
)


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path for a socket."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield path / "x.sock"
    shutil.rmtree(path, ignore_errors=True)


async def echo(params: dict[str, Any]) -> dict[str, Any]:
    """Gives back what it got."""
    return params


async def refuse(params: dict[str, Any]) -> dict[str, Any]:
    """Raises the error of a code."""
    error = catalogue()[params["code"]].__new__(catalogue()[params["code"]])
    RaydnsError.__init__(
        error, "wrong", where="here", hint="do this"
    )  # some make these three from arguments of their own
    raise error


async def stumble(_: dict[str, Any]) -> dict[str, Any]:
    """Has a bug, with something in it that the caller must not see."""
    raise ZeroDivisionError("secret detail")


async def unsendable(_: dict[str, Any]) -> dict[str, Any]:
    """Answers what msgpack cannot say."""
    return {"x": object()}


async def huge(_: dict[str, Any]) -> dict[str, Any]:
    """Answers more than a frame may hold."""
    return {"x": bytes(control.FRAME_MAX)}


async def sleep(params: dict[str, Any]) -> dict[str, Any]:
    """Takes its time."""
    await asyncio.sleep(params["s"])
    return {}


METHODS = {"echo": echo, "refuse": refuse, "stumble": stumble, "unsendable": unsendable, "huge": huge, "sleep": sleep}


@pytest.fixture
async def server(place: Path) -> AsyncIterator[ControlServer]:
    """A running server."""
    made = ControlServer(place, METHODS)
    await made.start()
    yield made
    await made.close()


async def test_call_and_call_sync_bring_back_the_answer(server: ControlServer) -> None:
    """Both clients carry every value of msgpack there and back; the socket is private."""
    params = {"text": "ä", "bytes": b"\x00\xff", "list": [1, None, True, 1.5], "map": {"a": {}}}
    assert await call(server.path, "echo", params) == params
    assert await asyncio.to_thread(call_sync, server.path, "echo", params) == params
    assert await call(server.path, "echo") == {}
    assert stat.S_IMODE(server.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("code", sorted(catalogue()))
async def test_every_error_of_the_catalogue_comes_back_as_itself(server: ControlServer, code: str) -> None:
    """Class, message, place and hint survive the socket, for both clients."""
    for attempt in (call(server.path, "refuse", {"code": code}), _sync(server.path, "refuse", {"code": code})):
        with pytest.raises(RaydnsError) as caught:
            await attempt
        assert type(caught.value) is catalogue()[code]
        assert caught.value.as_dict() == {"code": code, "message": "wrong", "where": "here", "hint": "do this"}


async def test_a_bug_stays_in_our_log(server: ControlServer, caplog: pytest.LogCaptureFixture) -> None:
    """An unforeseen exception is code ``error`` without details for the caller, and a traceback in the log."""
    for method in ("stumble", "unsendable"):
        caplog.clear()
        with pytest.raises(RaydnsError) as caught:
            await call(server.path, method)
        assert type(caught.value) is RaydnsError
        assert "secret detail" not in str(caught.value)
        assert "control method failed" in caplog.text
        assert "Traceback" in caplog.text


async def test_unknown_method_names_the_known(server: ControlServer) -> None:
    """A method that does not exist is the caller's error, with the list of those that do."""
    with pytest.raises(CommandError, match="unknown method 'nope'") as caught:
        await call(server.path, "nope")
    assert "echo" in caught.value.hint


async def test_nobody_there(place: Path) -> None:
    """No socket, a dead socket and a silent one are ``UnreachableError`` with what to do."""
    for attempt in (call(place, "echo"), _sync(place, "echo")):
        with pytest.raises(UnreachableError, match="does not exist") as caught:
            await attempt
        assert "raydns up" in caught.value.hint
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))
    for attempt in (call(place, "echo"), _sync(place, "echo")):
        with pytest.raises(UnreachableError, match="has gone"):
            await attempt


async def test_deadline(server: ControlServer) -> None:
    """A method that takes too long is given up at the caller's deadline."""
    for attempt in (
        call(server.path, "sleep", {"s": 5}, timeout_s=0.05),
        _sync(server.path, "sleep", {"s": 5}, timeout_s=0.05),
    ):
        with pytest.raises(UnreachableError, match=r"no answer to sleep within 0\.05 s"):
            await attempt


async def test_death_in_the_middle(place: Path) -> None:
    """A process that goes away before it answered is unreachable, not an odd error."""

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.write(b"\x10\x00")
        writer.close()

    listener = await asyncio.start_unix_server(hang_up, str(place))
    for attempt in (call(place, "echo"), _sync(place, "echo")):
        with pytest.raises(UnreachableError, match="went away"):
            await attempt
    listener.close()


async def test_sizes_are_bounded(server: ControlServer) -> None:
    """Requests and answers above 16 MiB are refused on both sides, before memory is taken for them."""
    with pytest.raises(FrameError, match="at most"):
        await call(server.path, "echo", {"x": bytes(control.FRAME_MAX)})
    with pytest.raises(FrameError, match="at most"):
        await call(server.path, "huge")
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    writer.write(struct.pack("<I", control.FRAME_MAX + 1))
    (length,) = struct.unpack("<I", await reader.readexactly(4))
    assert msgspec.msgpack.decode(await reader.readexactly(length))["error"]["code"] == "wire.frame"
    assert await reader.read() == b""
    writer.close()


async def test_a_lying_server_is_not_believed(place: Path) -> None:
    """An answer that announces 4 GB or is no map is a ``FrameError``."""
    answers = [b"\xff\xff\xff\xff", struct.pack("<I", 1) + b"\xc1", struct.pack("<I", 1) + b"\x05"]

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4)
        writer.write(answers[0])
        await writer.drain()
        await reader.read()
        writer.close()

    listener = await asyncio.start_unix_server(lie, str(place))
    while answers:
        for attempt in (call(place, "echo"), _sync(place, "echo")):
            with pytest.raises(FrameError):
                await attempt
        answers.pop(0)
        if not answers:
            break
    listener.close()


async def test_several_requests_on_one_connection(server: ControlServer) -> None:
    """A connection carries requests one after another."""
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    for number in range(3):
        body = msgspec.msgpack.encode({"method": "echo", "params": {"n": number}})
        writer.write(struct.pack("<I", len(body)) + body)
        (length,) = struct.unpack("<I", await reader.readexactly(4))
        assert msgspec.msgpack.decode(await reader.readexactly(length)) == {"ok": {"n": number}}
    writer.close()


async def test_connections_are_bounded(server: ControlServer) -> None:
    """Beyond the limit a connection is closed, and those that hang do not keep the others from being served."""
    held = [await asyncio.open_unix_connection(str(server.path)) for _ in range(control.CONNECTIONS_MAX)]
    assert await call_until_refused(server.path)
    for _, writer in held:
        writer.close()
    async with asyncio.timeout(5):
        while True:
            try:
                assert await call(server.path, "echo") == {}
                break
            except UnreachableError:
                await asyncio.sleep(0)


async def call_until_refused(path: Path) -> bool:
    """Whether a call is turned away, once the server has seen all connections that were opened before."""
    try:
        await call(path, "echo")
    except UnreachableError:
        return True
    return False


async def test_a_new_server_takes_the_name_over(place: Path) -> None:
    """A second server on the path gets the callers; the end of the first does not remove the second's name."""

    async def one(_: dict[str, Any]) -> dict[str, Any]:
        return {"server": 1}

    async def two(_: dict[str, Any]) -> dict[str, Any]:
        return {"server": 2}

    first, second = ControlServer(place, {"who": one}), ControlServer(place, {"who": two})
    await first.start()
    link = place.with_name("old.sock")
    link.hardlink_to(place)
    await second.start()
    assert await call(place, "who") == {"server": 2}
    assert await call(link, "who") == {"server": 1}
    await first.close()
    assert await call(place, "who") == {"server": 2}
    await second.close()
    assert not place.exists()


async def test_closing_from_a_method_answers_first(place: Path) -> None:
    """A method may end its own server: nothing hangs."""
    made: list[ControlServer] = []

    async def end(_: dict[str, Any]) -> dict[str, Any]:
        await made[0].close()
        return {"ended": True}

    made.append(ControlServer(place, {"end": end}))
    await made[0].start()
    assert await call(place, "end") == {"ended": True}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=64))
def test_no_octets_raise(shared: Path, data: bytes) -> None:
    """Whatever body arrives is answered with an error or an answer, and the server goes on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(str(shared))
        connection.sendall(struct.pack("<I", len(data)) + data)
        (length,) = struct.unpack("<I", connection.recv(4, socket.MSG_WAITALL))
        answer = msgspec.msgpack.decode(connection.recv(length, socket.MSG_WAITALL))
        assert set(answer) in ({"ok"}, {"error"})
    assert call_sync(shared, "echo", {"still": 1}) == {"still": 1}


@pytest.fixture
def shared(place: Path) -> Iterator[Path]:
    """A server in a thread of its own, for tests without a loop."""
    loop = asyncio.new_event_loop()
    server = ControlServer(place, METHODS)
    loop.run_until_complete(server.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield place
    asyncio.run_coroutine_threadsafe(server.close(), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


async def test_an_unwritable_place_is_an_os_error(place: Path) -> None:
    """A server whose directory is missing fails at its start, and leaves nothing behind."""
    server = ControlServer(place.parent / "missing" / "x.sock", {})
    with pytest.raises(OSError, match="No such file"):
        await server.start()
    await server.close()


def test_unknown_codes_are_plain_errors() -> None:
    """An error of a newer release's code is a ``RaydnsError`` with its text."""
    body = msgspec.msgpack.encode({"error": {"code": "of.tomorrow", "message": "m", "where": "w", "hint": "h"}})
    with pytest.raises(RaydnsError, match="w: m") as caught:
        control._decode_response(body, Path("/x"))
    assert type(caught.value) is RaydnsError
    with pytest.raises(StateError):
        control._decode_response(msgspec.msgpack.encode({"error": {"code": "state", "message": "m"}}), Path("/x"))


async def _sync(path: Path, method: str, params: dict[str, Any] | None = None, timeout_s: float = 5.0) -> object:
    return await asyncio.to_thread(call_sync, path, method, params, timeout_s)
