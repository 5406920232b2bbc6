"""The engine with real sockets: UDP, wildcard sources, TCP's limits, take-over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest

from raydns.nodes.ingress.reference import ReferenceEngine

from .harness import (
    FakeShard,
    answer,
    ask,
    frame,
    quick,
    read_frame,
    state,
    tcp_socket,
    udp_client,
    udp_socket,
    until,
)


class Running:
    """An engine with sockets and a fake shard."""

    def __init__(self, config: dict[str, Any] | None = None, host: str = "127.0.0.1") -> None:
        self.engine = ReferenceEngine(asyncio.get_running_loop())
        self.tcp = tcp_socket(host)  # first: ports of TCP are the ones that are often taken
        self.udp = udp_socket(host, self.tcp.getsockname()[1])
        self.address = (host.replace("0.0.0.0", "127.0.0.1"), self.udp.getsockname()[1])
        self.engine.adopt([self.udp, self.tcp])
        self.engine.install(state(config))
        self.shard = FakeShard(self.engine)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A TCP connection."""
        return await asyncio.open_connection(*self.address)

    def counted(self, family: str) -> dict[str, float]:
        """A metric by label."""
        found = next(f for f in self.engine.metrics() if f.name == family)
        return {next(iter(sample.labels.values()), ""): sample.value for sample in found.samples}


@contextlib.asynccontextmanager
async def running(config: dict[str, Any] | None = None, host: str = "127.0.0.1") -> AsyncIterator[Running]:
    """An engine that is closed in the end, and that had nothing to report."""
    one = Running(config, host)
    try:
        yield one
        assert one.counted("raydns_ingress_faults_total") == {}
    finally:
        one.engine.close()


async def test_dig_over_udp_and_tcp_and_both_families() -> None:
    """The real ``dig`` gets its answer over UDP and TCP, IPv4 and IPv6."""
    for host in ("127.0.0.1", "::1"):
        async with running(host=host) as one:
            for transport in ("+notcp", "+tcp"):
                process = await asyncio.create_subprocess_exec(
                    "dig", f"@{host}", "-p", str(one.address[1]), "+short", "+time=5", "+tries=1", transport,
                    "www.example.com", "A", stdout=subprocess.PIPE,
                )  # fmt: skip
                out, _ = await asyncio.wait_for(process.communicate(), 10)
                assert out == b"192.0.2.1\n"


async def test_nothing_is_read_before_a_state_is_installed() -> None:
    """A query that came before the first state waits in the socket and is answered after it."""
    engine = ReferenceEngine(asyncio.get_running_loop())
    sock = udp_socket()
    engine.adopt([sock])
    client = await udp_client(sock.getsockname())
    client.transport.sendto(ask("localhost"))
    await asyncio.sleep(0.05)
    assert client.replies == []
    engine.install(state())
    await until(lambda: len(client.replies) == 1)
    engine.close()


async def test_a_wildcard_socket_answers_from_the_address_that_was_asked() -> None:
    """Asked at 127.0.0.2 on a wildcard socket, the reply comes from 127.0.0.2; the item tells it to those above."""
    for host, asked in (("0.0.0.0", "127.0.0.2"), ("::", "::1")):
        async with running(host=host) as one:
            client = await udp_client((asked, one.address[1]))
            made = await client.ask(ask("www.example.com"))
            assert made.answer
            assert client.sources[0][0] == asked
            wanted = socket.inet_pton(socket.AF_INET6, asked if ":" in asked else f"::ffff:{asked}")
            assert one.shard.items[0].destination == wanted
            assert one.shard.items[0].destination_port == one.address[1]


async def test_a_burst_is_answered_whole() -> None:
    """A thousand queries sent at once are a thousand replies; misses of one wake-up travel together."""
    async with running() as one:
        one.shard.respond = quick
        client = await udp_client(one.address)
        for number in range(1000):
            client.transport.sendto(ask(f"n{number}.example.com", id=number))
            if number % 20 == 19:
                await client.pace(number)
        await until(lambda: len(client.replies) == 1000)
        assert one.counted("raydns_ingress_batches_total")["up"] < 500
        assert one.counted("raydns_ingress_queries_total") == {"udp": 1000}


async def test_truncated_over_udp_whole_over_tcp() -> None:
    """A 4 KB TXT: TC over UDP, all of it over TCP, asked above once."""
    async with running() as one:
        texts = " ".join(['"' + "x" * 250 + '"'] * 16)
        one.shard.respond = lambda item: answer(item, f"TXT {texts}")
        client = await udp_client(one.address)
        cut = await client.ask(ask("big.example.com", "TXT", use_edns=0))
        assert cut.flags & dns.flags.TC
        assert cut.answer == []
        reader, writer = await one.connect()
        writer.write(frame(ask("big.example.com", "TXT")))
        whole = dns.message.from_wire(await read_frame(reader))
        assert sum(map(len, whole.answer[0][0].strings)) == 4000
        assert len(one.shard.items) == 1
        writer.close()


async def test_pipelined_queries_are_answered_out_of_order() -> None:
    """A slow name does not hold up the quick ones behind it on the same connection (RFC 7766 section 6.2.1.1)."""
    async with running() as one:
        one.shard.respond = lambda item: None if b"slow" in item.message else quick(item)
        reader, writer = await one.connect()
        writer.write(
            frame(ask("slow.example.com", id=1)) + frame(ask("a.example.com", id=2)) + frame(ask("b.example.com", id=3))
        )
        first = [dns.message.from_wire(await read_frame(reader)).id for _ in range(2)]
        assert sorted(first) == [2, 3]
        slow = next(item for item in one.shard.items if b"slow" in item.message)
        one.shard.respond = quick
        one.shard.reply([slow])
        assert dns.message.from_wire(await read_frame(reader)).id == 1
        writer.close()


async def test_partial_frames_and_half_closed_connections() -> None:
    """A message that comes octet by octet is answered; after the client's end of file it still gets its answer."""
    async with running() as one:
        reader, writer = await one.connect()
        for octet in frame(ask("www.example.com", id=9)):
            writer.write(bytes((octet,)))
            await writer.drain()
        writer.write_eof()
        assert dns.message.from_wire(await read_frame(reader)).id == 9
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await until(lambda: one.engine.statistics()["connections"] == 0)


async def test_idle_connections_are_closed() -> None:
    """After ``idle_s`` a quiet connection is closed, one with half a message too; one that waits is not."""
    async with running({"server": {"tcp": {"idle_s": 0.3}}}) as one:
        one.shard.holding = True
        quiet, half, waiting = [await one.connect() for _ in range(3)]
        half[1].write(b"\x00\x40abc")
        waiting[1].write(frame(ask("www.example.com", id=5)))
        assert await asyncio.wait_for(quiet[0].read(), 5) == b""
        assert await asyncio.wait_for(half[0].read(), 5) == b""
        await until(lambda: one.engine.statistics()["connections"] == 1)
        one.shard.reply(one.shard.items)
        assert dns.message.from_wire(await read_frame(waiting[0])).id == 5
        for _, writer in (quiet, half, waiting):
            writer.close()


async def test_reading_pauses_above_the_unanswered_a_connection_may_have() -> None:
    """With 4 in flight allowed, 20 pipelined queries go up four at a time and are all answered."""
    async with running({"server": {"tcp": {"in_flight_max": 4}}}) as one:
        one.shard.holding = True
        one.shard.respond = quick
        reader, writer = await one.connect()
        writer.write(b"".join(frame(ask(f"n{n}.example.com", id=n)) for n in range(20)))
        answered = set()
        while len(answered) < 20:
            await until(lambda: len(one.shard.items) > len(answered))
            batch = one.shard.items[len(answered) :]
            assert len(batch) <= 4
            one.shard.reply(batch)
            for _ in batch:
                answered.add(dns.message.from_wire(await read_frame(reader)).id)
        assert answered == set(range(20))
        writer.close()


async def test_the_longest_idle_connection_makes_room() -> None:
    """At ``clients_max`` a new connection displaces the idle one that was quiet longest, never one with a query."""
    async with running({"server": {"tcp": {"clients_max": 2}}}) as one:
        one.shard.holding = True
        busy, idle = [await one.connect() for _ in range(2)]
        busy[1].write(frame(ask("www.example.com")))
        await until(lambda: len(one.shard.items) == 1 and one.engine.statistics()["connections"] == 2)
        third = await one.connect()
        third[1].write(frame(ask("localhost", id=3)))
        assert dns.message.from_wire(await read_frame(third[0])).id == 3
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(idle[0].read(), 5) == b""
        one.shard.reply(one.shard.items)
        assert await read_frame(busy[0])
        for _, writer in (busy, idle, third):
            writer.close()


async def test_a_prefix_has_its_own_bound() -> None:
    """Above ``prefix_clients_max`` busy connections a further one from the same prefix is refused."""
    config = {"server": {"tcp": {"prefix_clients_max": 2}}, "access": {"rate": {"exempt_loopback": False}}}
    async with running(config) as one:
        one.shard.holding = True
        lines = [await one.connect() for _ in range(2)]
        for number, (_, writer) in enumerate(lines):
            writer.write(frame(ask(f"n{number}.example.com")))
        await until(lambda: len(one.shard.items) == 2)
        third = await one.connect()
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(third[0].read(), 5) == b""
        assert one.counted("raydns_ingress_connections_total")["refused"] == 1
        for _, writer in (*lines, third):
            writer.close()


async def test_one_busy_connection_leaves_others_their_turn() -> None:
    """While a connection has thousands of queries in its buffer, another one's single query does not wait for all."""
    async with running({"server": {"tcp": {"turn": 10}}}) as one:
        greedy, modest = [await one.connect() for _ in range(2)]
        flood = frame(ask("localhost", id=1)) * 2000
        greedy[1].write(flood)
        modest[1].write(frame(ask("localhost", id=2)))
        assert dns.message.from_wire(await read_frame(modest[0])).id == 2
        for _ in range(2000):
            await read_frame(greedy[0])
        for _, writer in (greedy, modest):
            writer.close()


async def test_a_client_that_does_not_read_is_not_read_from() -> None:
    """A deaf client stops being served at a bounded buffer, is aborted in time, and harms nobody."""
    async with running({"server": {"tcp": {"idle_s": 0.5}}}) as one:
        deaf = socket.socket()
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(one.address)
        deaf.setblocking(False)
        texts = " ".join(['"' + "x" * 250 + '"'] * 100)
        one.shard.respond = lambda item: answer(item, f"TXT {texts}")
        query = frame(ask("big.example.com", "TXT")) * 500
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(3):
                while True:
                    await loop.sock_sendall(deaf, query)
        await until(lambda: one.counted("raydns_ingress_connections_total").get("deaf", 0) >= 1)
        client = await udp_client(one.address)
        assert (await client.ask(ask("localhost"))).answer
        deaf.close()


async def test_a_dropped_client_loses_its_connection() -> None:
    """What gets silence over UDP is hung up on over TCP; responses and scraps too."""
    async with running() as one:
        for octets in (b"\x00\x05hello", frame(struct.pack("!HHHHHH", 1, 0x8000, 0, 0, 0, 0)), b"\x00\x00"):
            reader, writer = await one.connect()
            writer.write(octets)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()


async def test_a_reset_connection_leaves_nothing() -> None:
    """Queries of a connection that went away wait no more."""
    async with running() as one:
        one.shard.holding = True
        _, writer = await one.connect()
        writer.write(frame(ask("www.example.com")))
        await until(lambda: len(one.shard.items) == 1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until(lambda: one.engine.desk.flights.waiting == 0)
        assert one.engine.statistics()["connections"] == 0


async def test_two_hundred_at_once_are_one_item() -> None:
    """200 clients ask one cold name over real sockets: one item goes up, 200 right answers come down."""
    async with running() as one:
        one.shard.holding = True
        clients = [await udp_client(one.address) for _ in range(200)]
        for number, client in enumerate(clients):
            client.transport.sendto(ask("cold.example.com", id=number))
        await until(lambda: one.engine.desk.flights.waiting == 200)
        assert len(one.shard.items) == 1
        one.shard.reply(one.shard.items)
        await until(lambda: all(client.replies for client in clients))
        for number, client in enumerate(clients):
            made = dns.message.from_wire(client.replies[0])
            assert (made.id, made.answer[0][0].to_text()) == (number, "192.0.2.1")


async def test_a_takeover_loses_no_query() -> None:
    """2,000 queries sent while a second engine takes over the same sockets: all answered, the first one drains."""
    first = Running()
    loop = asyncio.get_running_loop()
    client = await udp_client(first.address)
    reader, writer = await first.connect()
    second: ReferenceEngine | None = None
    for number in range(2000):
        client.transport.sendto(ask(f"n{number % 50}.example.com", id=number))
        if number == 1000:
            second = ReferenceEngine(loop)
            second.adopt([socket.socket(fileno=os.dup(s.fileno())) for s in (first.udp, first.tcp)])
            second.install(state())
            FakeShard(second, quick)
            first.engine.stop_reading()
        if number % 20 == 0:
            await client.pace(number)
    assert second is not None
    await until(lambda: len(client.replies) == 2000, 20)
    assert {int.from_bytes(reply[:2], "big") for reply in client.replies} == set(range(2000))
    assert second.statistics()["queries"] > 500
    writer.write(frame(ask("n1.example.com", id=77)))  # the old one keeps its connections until they are done
    assert dns.message.from_wire(await read_frame(reader)).id == 77
    assert await first.engine.drain(5)
    assert await asyncio.wait_for(reader.read(), 5) == b""
    first.engine.close()
    assert (await client.ask(ask("localhost", id=1))).answer
    second.close()
    writer.close()


async def test_draining_waits_for_answers() -> None:
    """What was read is answered before drain says ``True``; what never comes makes it ``False``."""
    async with running() as one:
        one.shard.holding = True
        client = await udp_client(one.address)
        client.transport.sendto(ask("www.example.com"))
        await until(lambda: len(one.shard.items) == 1)
        assert not await one.engine.drain(0.1)
        task = asyncio.ensure_future(one.engine.drain(5))
        one.shard.reply(one.shard.items)
        assert await task
        await until(lambda: len(client.replies) == 1)


async def test_a_reload_under_load_mixes_nothing() -> None:
    """While states are swapped, every query is answered from one of them."""
    async with running({"server": {"nsid": "a"}}) as one:
        client = await udp_client(one.address)
        for number in range(500):
            client.transport.sendto(ask("id.server", "TXT", rdclass="CH", id=number))
            if number % 10 == 0:
                one.engine.install(state({"server": {"nsid": "a" if number % 20 else "b"}}))
                await client.pace(number)
        await until(lambda: len(client.replies) == 500)
        assert {dns.message.from_wire(reply).answer[0][0].to_text() for reply in client.replies} <= {'"a"', '"b"'}


async def test_the_last_guard_counts_and_logs_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that nobody foresaw is SERVFAIL, one line in the log, and a number in the metrics."""
    one = Running()

    def broken(*_: object) -> bytes:
        raise RuntimeError("surprise")

    monkeypatch.setattr(one.engine.desk, "handle", broken)
    client = await udp_client(one.address)
    for number in range(5):
        assert (await client.ask(ask("www.example.com", id=number))).rcode() == dns.rcode.SERVFAIL
    assert sum(one.counted("raydns_ingress_faults_total").values()) == 5
    assert len([record for record in caplog.records if record.name.endswith("reference")]) == 1
    one.engine.close()
