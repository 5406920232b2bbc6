"""Sockets that go from one process to another."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydns.nodes.handover import SocketGiver, announce_ready, inherited_sockets, take_sockets
from raydns.schemas.errors import FrameError, SocketError, UnreachableError


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path for a socket."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield path / "fds.sock"
    shutil.rmtree(path, ignore_errors=True)


def udp() -> socket.socket:
    """A bound UDP socket."""
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    return one


async def test_a_given_socket_is_the_same_socket(place: Path) -> None:
    """What was queued before the hand-over is read from the taken descriptor, also after the giver closed its own."""
    with udp() as held, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        giver = SocketGiver(place, lambda: [("udp", held)])
        await giver.start()
        sender.sendto(b"queued", held.getsockname())
        taken = await asyncio.to_thread(take_sockets, place)
        held.close()
        await giver.close()
        assert [name for name, _ in taken] == ["udp"]
        with taken[0][1] as got:
            assert got.recv(100) == b"queued"
            assert got.family == socket.AF_INET
            assert not os.get_inheritable(got.fileno())
    assert not place.exists()


async def test_many_and_none(place: Path) -> None:
    """Sixty sockets cross in one message, and none is an answer too."""
    held = [udp() for _ in range(60)]
    given = [("udp", one) for one in held]
    giver = SocketGiver(place, lambda: given)
    await giver.start()
    taken = await asyncio.to_thread(take_sockets, place)
    assert [one.getsockname() for _, one in taken] == [one.getsockname() for one in held]
    given.clear()
    assert await asyncio.to_thread(take_sockets, place) == []
    await giver.close()
    for one in [*held, *(one for _, one in taken)]:
        one.close()


def test_nobody_gives(place: Path) -> None:
    """Without a giver there is an ``UnreachableError``."""
    with pytest.raises(UnreachableError):
        take_sockets(place)


async def test_a_giver_that_lies(place: Path) -> None:
    """Garbage, and names without sockets, are ``FrameError``; silence is unreachable. No descriptor is leaked."""
    answers = [b"\x05\x00\x00\x00\xff\xff\xff\xff\xff", b"\x0e\x00\x00\x00" + b"\x81\xa5names\x91\xa3udpxx"[:14], b""]

    async def lie(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answers[0])
        writer.close()

    listener = await asyncio.start_unix_server(lie, str(place))
    before = len(os.listdir("/proc/self/fd"))
    while answers:
        with pytest.raises((FrameError, UnreachableError)):
            await asyncio.to_thread(take_sockets, place, 1.0)
        if len(answers) == 1:
            break
        answers.pop(0)
    async with asyncio.timeout(5):
        while len(os.listdir("/proc/self/fd")) > before:
            await asyncio.sleep(0)
    listener.close()


def test_sockets_given_at_the_start() -> None:
    """A child finds its sockets from descriptor 3 on, with their names, and answers on the ready pipe."""
    program = (
        "import os, socket\nfrom raydns.nodes.handover import *\n"
        "named = inherited_sockets(os.environ)\n"
        "assert [n for n, _ in named] == ['udp', 'tcp'], named\n"
        "assert not os.get_inheritable(3)\n"
        "announce_ready(os.environ)\n"
        "print(named[0][1].getsockname()[1], named[1][1].type == socket.SOCK_STREAM)\n"
    )
    reader, writer = os.pipe()
    with udp() as one, socket.socket(socket.AF_INET, socket.SOCK_STREAM) as two:
        two.bind(("127.0.0.1", 0))

        def put() -> None:
            handles = [os.dup2(h, 100 + i) for i, h in enumerate((one.fileno(), two.fileno(), writer))]
            for at, handle in enumerate(handles):
                os.dup2(handle, 3 + at, inheritable=True)

        environ = {**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "udp", "RAYDNS_READY_FD": "5"}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environ,
            close_fds=False,
            preexec_fn=put,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [str(one.getsockname()[1]), "True"]
    assert os.read(reader, 100) == b"READY=1\n"
    os.close(reader)
    os.close(writer)


def test_promises_that_are_not_kept() -> None:
    """A wrong count or a descriptor that is no socket is a ``SocketError``; no promise is an empty list."""
    assert inherited_sockets({}) == []
    with pytest.raises(SocketError, match="LISTEN_FDS is 'many'"):
        inherited_sockets({"LISTEN_FDS": "many"})
    with pytest.raises(SocketError, match="LISTEN_FDS"):
        inherited_sockets({"LISTEN_FDS": "251"})
    announce_ready({})
    announce_ready({"RAYDNS_READY_FD": "9999"})
