"""Children: exact descriptors, watches, adoption, and the end of a whole family; and what /proc tells of them."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from raydns.nodes.supervisor import holders, process, procfs
from raydns.nodes.supervisor.procfs import Identity


async def ended(start: Callable[[Callable[[str], None]], process.Process]) -> str:
    """How a process ends."""
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    start(future.set_result)
    async with asyncio.timeout(20):
        return await future


def spawn(program: str, on_exit: Callable[[str], None], output: int, *handles: int) -> process.Process:
    """A Python child."""
    command = [sys.executable, "-c", program]
    return process.spawn(command, dict(os.environ), output=output, descriptors=handles, on_exit=on_exit)


async def test_a_child_gets_exactly_its_descriptors(tmp_path: Path) -> None:
    """Descriptors become 3, 4, …, whatever numbers they had; nothing else is inherited; it leads its own session."""
    process.seal_descriptors()
    log = process.open_log(tmp_path / "log")
    pairs = [os.pipe() for _ in range(20)]  # so that sources and targets overlap
    program = (
        "import os\n"
        "assert os.getsid(0) == os.getpid()\n"
        "assert os.read(0, 1) == b''\n"
        "for at in range(20): os.write(3 + at, b'%d' % at)\n"
        "print(sorted(int(n) for n in os.listdir('/proc/self/fd')))"
    )
    handles = [writer for _, writer in reversed(pairs)]
    assert await ended(lambda told: spawn(program, told, log, *handles)) == "exited with status 0"
    for at, (reader, writer) in enumerate(reversed(pairs)):
        os.close(writer)
        assert os.read(reader, 10) == b"%d" % at
        os.close(reader)
    os.close(log)
    listed = process.log_tail(tmp_path / "log")
    assert listed.startswith("[0, 1, 2, 3, 4,")
    assert "22, 23]" in listed  # 23 is the listing's own


async def test_how_it_ended(tmp_path: Path) -> None:
    """Status and signal are told in words; a program that does not exist is an ``OSError``."""
    log = process.open_log(tmp_path / "log")
    assert await ended(lambda told: spawn("raise SystemExit(7)", told, log)) == "exited with status 7"

    def killed(told: Callable[[str], None]) -> process.Process:
        one = spawn("import time; time.sleep(60)", told, log)
        one.send(signal.SIGKILL)
        return one

    assert await ended(killed) == "was ended by SIGKILL"
    with pytest.raises(OSError, match="No such file"):
        process.spawn(["/does/not/exist"], {}, output=log, on_exit=lambda _: None)
    os.close(log)


async def test_adopting_somebody_elses_child() -> None:
    """A process that is not ours is watched and signalled; one that is gone, or another of the same id, is not."""
    other = subprocess.Popen(["setsid", "-f", sys.executable, "-c", "import time; time.sleep(61)  # adopt-me"])
    other.wait()

    def find() -> Identity | None:
        for pid, one in procfs.all_processes().items():
            if procfs.command_line(pid).endswith("# adopt-me"):
                return one.identity
        return None

    async with asyncio.timeout(10):
        while (who := find()) is None:
            await asyncio.sleep(0.01)
    assert process.adopt(Identity(who.pid, who.start + 1), lambda _: None) is None
    future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    adopted = process.adopt(who, future.set_result)
    assert adopted is not None
    adopted.send(signal.SIGTERM)
    async with asyncio.timeout(10):
        assert await future == "ended"
    assert adopted.gone
    adopted.send(signal.SIGTERM)  # nothing happens
    assert process.adopt(who, lambda _: None) is None
    assert not procfs.is_alive(who)


async def test_a_family_is_found_and_ended_whatever_it_does() -> None:
    """Children that ignore SIGTERM, have groups or sessions of their own, or lost their parent: none is left."""
    mark = f"RAYDNS_TEST_MARK={secrets.token_hex(8)}"
    name, _, value = mark.partition("=")
    stubborn = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(600)"
    program = (
        "import subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {stubborn!r}])\n"
        "subprocess.Popen(['sleep', '600'], process_group=0)\n"
        "subprocess.run(['setsid', '-f', 'sleep', '600'])\n"
        "subprocess.run(['sh', '-c', 'sleep 600 &'])\n"
        "subprocess.Popen(['env', '-i', '/bin/sleep', '600'])\n"
        "print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, name: value}, stdout=subprocess.PIPE, start_new_session=True
    ) as root:
        assert root.stdout is not None
        assert root.stdout.readline() == b"up\n"
        members = procfs.family(mark)
        assert len(members) == 6
        assert os.getpid() not in {who.pid for who in members}
        root.kill()
        root.wait()
        seen = set(members)
        left = await process.end_all(lambda: procfs.family(mark, seen), None, grace_s=1.0, immediate=False, rest_s=0.3)
    assert left == set()
    assert procfs.family(mark, seen) == set()


async def test_an_immediate_end(tmp_path: Path) -> None:
    """Without politeness everything is gone at once."""
    log = process.open_log(tmp_path / "log")
    mark = f"RAYDNS_TEST_MARK={secrets.token_hex(8)}"
    os.environ["RAYDNS_TEST_MARK"] = mark.partition("=")[2]
    try:
        one = spawn("import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(60)", lambda _: None, log)
    finally:
        del os.environ["RAYDNS_TEST_MARK"]
    async with asyncio.timeout(10):
        assert await process.end_all(lambda: procfs.family(mark), one, grace_s=5.0, immediate=True) == set()
        await one.wait()
    os.close(log)


def test_logs_are_put_aside_when_large(tmp_path: Path) -> None:
    """A log above its bound is renamed at the next start; its tail is its last lines."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        file.truncate(process.LOG_MAX + 1)
    os.close(process.open_log(path))
    assert path.stat().st_size == 0
    assert path.with_name("log.1").stat().st_size == process.LOG_MAX + 1
    path.write_text("".join(f"line {n}\n" for n in range(1000)))
    assert process.log_tail(path, lines=2) == "line 998\nline 999"
    assert process.log_tail(tmp_path / "missing") == ""


def test_stat_survives_odd_names(tmp_path: Path) -> None:
    """A process name with spaces, parentheses and line ends is read right; garbage is no process."""
    (tmp_path / "7").mkdir()
    tail = " ".join(str(n) for n in range(3, 52))
    (tmp_path / "7" / "stat").write_text(f"7 (a) b\n(c)) S {tail}")
    found = procfs.stat(7, proc=tmp_path)
    assert found is not None
    assert (found.name, found.state, found.parent, found.group, found.session) == ("a) b\n(c)", "S", 3, 4, 5)
    assert found.start == 21
    (tmp_path / "7" / "stat").write_text("7 (x")
    assert procfs.stat(7, proc=tmp_path) is None
    assert procfs.stat(8, proc=tmp_path) is None


def test_holders_are_found_by_their_inode() -> None:
    """The process behind a UDP and a listening TCP port is found; a connected TCP socket is in nobody's way."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as tcp,
    ):
        udp.bind(("127.0.0.1", 0))
        tcp.bind(("::1", 0))
        assert holders.find("tcp", "::1", tcp.getsockname()[1]) == []
        tcp.listen()
        (found,) = holders.find("udp", "0.0.0.0", udp.getsockname()[1])
        assert found.pid == os.getpid()
        assert found.address == f"127.0.0.1:{udp.getsockname()[1]}"
        (found,) = holders.find("tcp", "::1", tcp.getsockname()[1])
        assert found.pid == os.getpid()
        assert holders.find("udp", "127.0.0.2", udp.getsockname()[1]) == []
        assert holders.find("udp", "::1", udp.getsockname()[1]) == []
