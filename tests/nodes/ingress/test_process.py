"""The ingress as a process: sockets by LISTEN_FDS, what is known, control methods, take-over, an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dns.message
import dns.rcode
import msgspec
import pytest

from raydns.nodes import control, handover
from raydns.nodes.known import Known
from raydns.nodes.metrics import Family
from raydns.nodes.paths import StateDir
from raydns.nodes.supervisor import process
from raydns.schemas.cluster import Snapshot, Version, first_snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import CommandError, StateError

from .harness import ask, frame, read_frame, tcp_socket, udp_client, udp_socket, until, zone_files

ZONE = "$TTL 60\n@ SOA a b 1 2 3 4 5\n@ NS a\na A 192.0.2.1\nwww A 192.0.2.{}\n"
COMMAND = [sys.executable, "-m", "raydns.nodes.ingress.main", "--state-dir"]


@pytest.fixture(name="state_dir")
def state_dir_fixture() -> Iterator[StateDir]:
    """The state directory of a machine, with a short path."""
    with tempfile.TemporaryDirectory(prefix="rd-") as folder:
        state_dir = StateDir(Path(folder) / "s")
        state_dir.create()
        yield state_dir


def snapshot(known: Known, folder: Path, address: int, number: int = 1, **config: Any) -> Snapshot:
    """Makes known a state with the zone ``example.com``."""
    entries, paths = zone_files(folder, {"example.com.": ZONE.format(address)})
    for path in paths.values():
        known.put_image(path.read_bytes())
    made = first_snapshot(Config.model_validate(config).model_dump(mode="json"), 7)
    made.version = Version(1, number)
    made.zones = entries
    known.save(made)
    return made


class Node:
    """Sockets, and ingress processes that get them."""

    def __init__(self, state_dir: StateDir) -> None:
        self.state_dir = state_dir
        self.udp = udp_socket()
        self.address = self.udp.getsockname()
        self.tcp = tcp_socket(port=self.address[1])
        self.children: list[process.Process] = []
        self.log = state_dir.logs / "ingress.log"

    async def start(self) -> process.Process:
        """Starts one and waits until it answers."""
        child, reader = self.spawn()
        try:
            await until(lambda: bool(self.heard(reader)) or child.gone, 20)
            assert not child.gone, self.log.read_text()
        finally:
            os.close(reader)
        return child

    def spawn(self) -> tuple[process.Process, int]:
        """Starts one; the descriptor tells when it is ready."""
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        output = process.open_log(self.log)
        environ = {**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "udp:tcp", "RAYDNS_READY_FD": "5"}
        child = process.spawn(
            [*COMMAND, str(self.state_dir.path)],
            environ,
            output=output,
            descriptors=[self.udp.fileno(), self.tcp.fileno(), writer],
            on_exit=lambda _: None,
        )
        os.close(output)
        os.close(writer)
        self.children.append(child)
        return child, reader

    @staticmethod
    def heard(reader: int) -> bytes:
        """What the process said, if anything."""
        try:
            return os.read(reader, 64)
        except BlockingIOError:
            return b""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A control method of the newest ingress."""
        return await control.call(self.state_dir.ingress_socket, method, params)


@contextlib.asynccontextmanager
async def node(state_dir: StateDir) -> AsyncIterator[Node]:
    """A node whose processes are ended."""
    one = Node(state_dir)
    try:
        yield one
    finally:
        for child in one.children:
            child.send(signal.SIGKILL)
            await child.wait()
        one.udp.close()
        one.tcp.close()


async def test_it_serves_what_is_known_and_obeys(state_dir: StateDir, tmp_path: Path) -> None:
    """From disk to answers over UDP and TCP; every control method; SIGTERM ends it with exit code 0 and no trace."""
    known = Known(state_dir)
    snapshot(known, tmp_path, 80, server={"name": "m7"})
    async with node(state_dir) as one:
        child = await one.start()
        client = await udp_client(one.address)
        assert (await client.ask(ask("www.example.com"))).answer[0][0].to_text() == "192.0.2.80"
        reader, writer = await asyncio.open_connection(*one.address)
        writer.write(frame(ask("www.example.com")))
        assert dns.message.from_wire(await read_frame(reader)).answer
        writer.close()
        assert os.getsid(child.pid) == child.pid

        status = await one.call("status")
        assert (status["pid"], status["engine"], status["ready"], status["machine"]) == (
            child.pid,
            "python",
            True,
            "m7",
        )
        assert status["version"] == [1, 1]
        assert status["sockets"] == [f"{kind} 127.0.0.1:{one.address[1]}" for kind in ("udp", "tcp")]
        families = msgspec.msgpack.decode((await one.call("metrics"))["families"], type=list[Family])
        values = {f.name: sum(s.value for s in f.samples) for f in families}
        assert values["raydns_ingress_queries_total"] == 2
        assert values["raydns_ingress_memory_bytes"] > 10_000_000
        recent = (await one.call("recent", limit=5))["queries"]
        assert recent[0]["name"] == "www.example.com."
        assert set(await one.call("query_rate")) == {"queries_per_second", "misses_per_second", "in_flight"}
        with pytest.raises(CommandError, match="unknown method"):
            await one.call("nonsense")
        with pytest.raises(CommandError, match="seconds"):
            await one.call("drain", timeout_s="soon")

        snapshot(known, tmp_path, 81, 2)
        answer = await one.call("refresh")
        assert answer == {"version": Version(1, 2).packed, "refusals": []}
        assert (await client.ask(ask("www.example.com", id=2))).answer[0][0].to_text() == "192.0.2.81"

        assert await one.call("drain", timeout_s=2) == {"drained": True}
        child.send(signal.SIGTERM)
        async with asyncio.timeout(10):
            await child.wait()
        assert not state_dir.ingress_socket.exists()
        assert not state_dir.ingress_fds_socket.exists()
        assert "Traceback" not in one.log.read_text()


async def test_it_never_imports_ray() -> None:
    """Neither ingress nor anything that it imports knows Ray; nor does it load what it does not need."""
    look = "print([m for m in ('ray', 'opentelemetry', 'aiohttp', 'dns') if m in sys.modules])"
    code = f"import sys, raydns.nodes.ingress.main; {look}"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60).stdout
    assert out.strip() == b"[]"


async def test_a_takeover_between_processes_loses_nothing(state_dir: StateDir, tmp_path: Path) -> None:
    """While queries come in, a second process gets the same sockets and the first leaves: every query is answered."""
    snapshot(Known(state_dir), tmp_path, 80)
    async with node(state_dir) as one:
        first = await one.start()
        os.link(state_dir.ingress_socket, state_dir.run / "old.sock")
        client = await udp_client(one.address)
        sent = 0
        second: asyncio.Task[process.Process] | None = None
        while sent < 2000 or second is None or not second.done() or not first.gone:
            client.transport.sendto(ask("www.example.com", id=sent & 0xFFFF))
            sent += 1
            if sent == 500:
                second = asyncio.ensure_future(one.start())
            if sent % 10 == 0:
                await client.pace(sent)
                await asyncio.sleep(0.002)
            if second is not None and second.done() and (state_dir.run / "old.sock").exists():
                await control.call(state_dir.run / "old.sock", "stop_reading")
                assert await control.call(state_dir.run / "old.sock", "drain", {"timeout_s": 5}) == {"drained": True}
                first.send(signal.SIGTERM)
                (state_dir.run / "old.sock").unlink()
            assert sent < 60_000
        await until(lambda: len(client.replies) == sent)
        assert (await one.call("status"))["pid"] == second.result().pid


async def test_sockets_are_handed_back(state_dir: StateDir, tmp_path: Path) -> None:
    """A supervisor started anew gets the very sockets back, with their names."""
    snapshot(Known(state_dir), tmp_path, 80)
    async with node(state_dir) as one:
        await one.start()
        taken = await asyncio.to_thread(handover.take_sockets, state_dir.ingress_fds_socket)
        assert [(name, held.getsockname()) for name, held in taken] == [("udp", one.address), ("tcp", one.address)]
        assert taken[0][1].type == socket.SOCK_DGRAM
        for _, held in taken:
            held.close()


async def test_without_anything_known_it_waits_for_the_first_refresh(state_dir: StateDir, tmp_path: Path) -> None:
    """It is not ready and answers nobody, until something is known; what was asked meanwhile is answered then."""
    async with node(state_dir) as one:
        child, reader = one.spawn()
        await until(state_dir.ingress_socket.exists, 20)
        assert not (await one.call("status"))["ready"]
        with pytest.raises(StateError, match="nothing is known"):
            await one.call("refresh")
        client = await udp_client(one.address)
        client.transport.sendto(ask("www.example.com"))
        snapshot(Known(state_dir), tmp_path, 80)
        await one.call("refresh")
        await until(lambda: Node.heard(reader) == handover.READY)
        await until(lambda: len(client.replies) == 1)
        os.close(reader)
        assert not child.gone


async def test_a_damaged_image_is_refused_and_told(state_dir: StateDir, tmp_path: Path) -> None:
    """Its zone is SERVFAIL with EDE in the end, never a neighbour's answer; refresh and status say which and why."""
    known = Known(state_dir)
    made = snapshot(known, tmp_path, 80, server={"query_timeout_s": 0.3})
    image = made.zones[0].image
    assert image is not None
    path = known.image_path(image.sha256)
    octets = bytearray(path.read_bytes())
    octets[len(octets) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(octets)
    async with node(state_dir) as one:
        await one.start()
        client = await udp_client(one.address)
        reply = await client.ask(ask("www.example.com", use_edns=0))
        assert reply.rcode() == dns.rcode.SERVFAIL
        assert reply.options
        assert (await client.ask(ask("localhost", id=3))).answer
        for answer in (await one.call("refresh"), await one.call("status")):
            [refusal] = answer["refusals"]
            assert (refusal["apex"], refusal["sha256"]) == (made.zones[0].apex, image.sha256)
            assert refusal["problem"].startswith("damaged, so removed: its octets hash to ")
        assert (await one.call("status"))["images_missing"] == 1


async def test_what_cannot_run_says_why(tmp_path: Path) -> None:
    """A wrong argument and a state directory with too long a path end with a sentence, not a traceback."""
    long = tmp_path / ("x" * 120)
    ran = subprocess.run([*COMMAND, str(long)], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == StateError.exit_code
    assert "Traceback" not in ran.stderr
    assert "too many for the Unix sockets" in ran.stderr
    environ = {**os.environ, "LISTEN_FDS": "7"}
    ran = subprocess.run(
        [*COMMAND, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False, env=environ
    )
    assert ran.returncode == 5
    assert "LISTEN_FDS=7 is not a socket" in ran.stderr
    ran = subprocess.run(COMMAND[:3], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 2
    assert "--state-dir" in ran.stderr
