"""Stream servers on real sockets: their files, probes, draining, slow readers, hostile peers, TLS."""

from __future__ import annotations

import asyncio
import functools
import os
import random
import resource
import socket
import ssl
import stat
import struct
from pathlib import Path

import dns.message
import pytest

from raydns.nodes.streams import frames, link, probe, secret
from raydns.nodes.streams.frames import Connection, FrameType
from raydns.nodes.streams.requests import Requests
from raydns.nodes.streams.server import Responder, StreamServer, Tls
from raydns.schemas import batch
from raydns.schemas.batch import AnswerItem, QueryFlag, QueryItem
from raydns.schemas.errors import SocketError, StateError
from tests.nodes.streams.conftest import MESSAGE, Bench, Collector, echo, endpoint, until

SECRET = bytes(range(32))


async def test_socket_file_is_ours_alone_and_goes_away(bench: Bench) -> None:
    """The socket has mode 0600 and is removed at close."""
    server = await bench.serve()
    status = bench.path.stat()
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert [p.name for p in bench.path.parent.iterdir()] == ["q.sock"]
    await server.close()
    assert not bench.path.exists()


async def test_stale_socket_file_is_replaced_a_live_one_is_not(bench: Bench) -> None:
    """A file left by a killed process is replaced; a second server on a live path is refused and harms nothing."""
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(bench.path))
    dead.close()
    await bench.serve()
    second = StreamServer(echo, path=bench.path)
    with pytest.raises(SocketError, match="listens") as caught:
        await second.start()
    assert caught.value.where == str(bench.path)
    assert caught.value.hint
    client = await bench.client()
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    await until(lambda: heard.count == 1)
    assert heard.answers[0] != [None]


async def test_paths_that_cannot_be_used(short_dir: Path) -> None:
    """Too long, no directory, a plain file in the way: each says what is wrong and where."""
    (short_dir / "plain").write_text("precious")
    for path in (short_dir / ("x" * 100), short_dir / "none" / "q.sock"):
        with pytest.raises(SocketError) as caught:
            await StreamServer(echo, path=path).start()
        assert caught.value.where == str(path)
        assert caught.value.hint
    with pytest.raises(SocketError) as caught:
        await StreamServer(echo, path=short_dir / "plain").start()
    assert caught.value.where == str(short_dir / "plain")
    assert (short_dir / "plain").read_text() == "precious"


async def test_probe_is_answered_by_the_server_itself(bench: Bench) -> None:
    """The health monitor's question gets NOERROR and the actor's name, and never reaches the handler."""
    seen: list[QueryItem] = []

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        seen.extend(queries)
        echo(queries, responder)

    server = await bench.serve(handler)
    client = await bench.client()
    heard = Collector()
    client.send(probe.probe_query(2000), heard.done(0))
    client.send(QueryItem(0, MESSAGE, 2000, flags=QueryFlag.PROBE), heard.done(1))  # another name: not ours
    client.send(QueryItem(0, b"\0", 2000, flags=QueryFlag.PROBE), heard.done(2))
    await until(lambda: heard.count == 3)
    (answer,) = heard.answers[0]
    assert answer is not None
    assert not answer.flags  # this slot only
    message = dns.message.from_wire(answer.message)
    assert message.rcode() == 0
    assert message.answer[0].to_text() == 'health.raydns. 0 CH TXT "query:0.g1"'
    assert [item.message for item in seen] == [MESSAGE, b"\0"]
    assert server.statistics().probes == 1


async def test_drain_answers_what_was_taken(bench: Bench) -> None:
    """Closing with time to drain answers every question in hand, refuses new ones, and leaves the path free."""
    held: list[tuple[Responder, QueryItem]] = []
    server = await bench.serve(lambda queries, responder: held.extend((responder, q) for q in queries))
    client = await bench.client()
    heard = Collector()
    for number in range(50):
        client.send(QueryItem(0, MESSAGE, 5000), heard.done(number))
    await until(lambda: len(held) == 50)
    closing = asyncio.create_task(server.close(drain_s=5.0))
    await until(lambda: not client.connected)  # BYE came: nothing new is sent
    assert not bench.path.exists()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(50))
    for responder, item in held:
        responder.answer(AnswerItem(item.slot, item.message))
    assert await closing is True
    await until(lambda: heard.count >= 50)
    assert all(a is not None for n in range(50) for a in heard.answers[n])
    await bench.serve()
    await until(lambda: heard.count == 51)
    assert heard.answers[50] != [None]


async def test_drain_ends_at_its_deadline(bench: Bench) -> None:
    """A handler that never answers cannot hold the server up."""
    server = await bench.serve(lambda queries, responder: None)
    client = await bench.client()
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    await until(lambda: server.queries == 1)
    assert await server.close(drain_s=0.05) is False
    await until(lambda: heard.count == 1)
    assert heard.answers[0] == [None]


async def test_responder_after_the_end_does_nothing(bench: Bench) -> None:
    """Answers for an asker that is gone are dropped without an error."""
    held: list[tuple[Responder, QueryItem]] = []
    await bench.serve(lambda queries, responder: held.extend((responder, q) for q in queries))
    client = await bench.client()
    client.send(QueryItem(0, MESSAGE, 5000), Collector().done(0))
    await until(lambda: len(held) == 1)
    responder, item = held[0]
    assert responder.connected
    assert responder.peer == "here"
    await client.close()
    await until(lambda: not responder.connected)
    responder.answer(AnswerItem(item.slot, MESSAGE))
    assert responder.backlog == 0


async def test_answer_that_fits_no_batch_harms_no_other(bench: Bench) -> None:
    """A handler's impossible answer is logged and left out; the others of the batch arrive."""

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        for number, item in enumerate(queries):
            responder.answer(AnswerItem(item.slot, bytes(70_000) if number == 1 else b"good"))

    await bench.serve(handler)
    client = await bench.client()
    heard = Collector()
    for number in range(3):
        client.send(QueryItem(0, MESSAGE, 5000), heard.done(number))
    await until(lambda: heard.count == 2)
    assert heard.answers[1] == []
    assert client.connected


async def test_handler_that_raises_costs_its_connection_only(bench: Bench) -> None:
    """A bug in the handler closes that connection, so that its questions are asked again; the server lives."""
    failed: list[int] = []

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        if not failed:
            failed.append(1)
            raise ValueError("a bug above")
        echo(queries, responder)

    await bench.serve(handler)
    client = await bench.client()
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    await until(lambda: heard.count == 1)
    assert heard.answers[0] == [None]
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(1))
    await until(lambda: heard.count == 2)
    assert heard.answers[1] != [None]


class RawPeer:
    """A client that speaks frames by hand and reads only when told."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.connect(str(path))
        self.socket.setblocking(False)
        self.connection = Connection(0, "raw", 0.0)
        self.pending = self.connection.data_to_send()

    def push(self) -> None:
        """Writes as much as the socket takes."""
        try:
            while self.pending:
                self.pending = self.pending[self.socket.send(self.pending) :]
        except BlockingIOError:
            pass

    def closed(self) -> bool:
        """Whether the server has ended the connection (reads, and throws away)."""
        try:
            while True:
                if not self.socket.recv(1 << 16):
                    return True
        except BlockingIOError:
            return False
        except OSError:
            return True


def batches(count: int, items: int) -> bytes:
    """Frames of that many batches of queries."""
    data = batch.encode_queries([QueryItem(n, MESSAGE, 5000) for n in range(items)])
    return b"".join(struct.pack("<IBI", len(data) + 5, FrameType.BATCH, seq) + data for seq in range(1, count + 1))


async def test_slow_reader_is_bounded_and_cut_off(bench: Bench) -> None:
    """A peer that asks and never reads: its answers are bounded in octets, then it is cut off; others go on."""

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        for item in queries:
            responder.answer(AnswerItem(item.slot, bytes(60_000)))

    server = await bench.serve(handler, backlog_size_max=8 << 20)
    peer = RawPeer(bench.path)
    peer.pending += batches(3, 100)
    peer.push()
    await until(lambda: server.statistics().refused == 1)
    assert server.statistics().connections == 0
    client = await bench.client()
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    await until(lambda: heard.count == 1)
    peer.socket.close()


async def test_slow_reader_within_bounds_gets_everything(bench: Bench) -> None:
    """A peer that reads late gets every answer: the window holds the server back, nothing is lost."""

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        for item in queries:
            responder.answer(AnswerItem(item.slot, bytes(30_000)))

    server = await bench.serve(handler)
    peer = RawPeer(bench.path)
    peer.pending += batches(2, 200)
    peer.connection._sent = 2  # made by hand above
    peer.push()
    await until(lambda: server.queries == 400)
    got = 0
    async with asyncio.timeout(20):
        while got < 400:
            try:
                data = peer.socket.recv(1 << 18)
            except BlockingIOError:
                await asyncio.sleep(0.001)
                continue
            assert data
            for event in peer.connection.receive(data, 0.0):
                if isinstance(event, frames.BatchReceived):
                    got += len(batch.decode_answers(event.data))
                    peer.connection.acknowledge(event.seq)
            peer.pending += peer.connection.data_to_send()
            peer.push()
    peer.socket.close()


async def test_peer_that_reads_nothing_is_dead_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that takes no octet while we have some for it is cut off, although its backlog is within bounds."""
    monkeypatch.setattr(link, "STALL_S", 0.1)
    monkeypatch.setattr(link, "TICK_S", 0.02)

    def handler(queries: list[QueryItem], responder: Responder) -> None:
        for item in queries:
            responder.answer(AnswerItem(item.slot, bytes(30_000)))

    server = await bench.serve(handler)
    peer = RawPeer(bench.path)
    peer.pending += batches(2, 100)
    peer.push()
    await until(lambda: server.statistics().refused == 1)
    peer.socket.close()


async def test_stopped_peer_is_noticed_by_the_client(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that no longer reacts (SIGSTOP) loses its connection within the silence; questions hear None."""
    monkeypatch.setattr(link, "TICK_S", 0.02)
    monkeypatch.setattr(link, "Connection", functools.partial(Connection, ping_after_s=0.05, silence_s=0.3))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(bench.path))
    listener.listen()
    listener.setblocking(False)
    client = await bench.client(wait=False)
    accepted, _ = await asyncio.get_running_loop().sock_accept(listener)
    accepted.sendall(Connection(0, "stopped", 0.0).data_to_send())
    await until(lambda: client.connected)
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    await until(lambda: heard.count == 1)
    assert heard.answers[0] == [None]
    await until(lambda: "has not said anything" in client.last_problem)
    accepted.close()
    listener.close()


async def test_peer_that_ignores_its_window_is_cut_off(bench: Bench) -> None:
    """Batches sent in one write beyond the window end the connection, and only that."""
    server = await bench.serve(lambda queries, responder: None)
    peer = RawPeer(bench.path)
    peer.pending += batches(6, 1)
    peer.push()
    await until(peer.closed)
    assert server.statistics().refused == 1
    peer.socket.close()


async def test_wrong_kind_of_batch_is_cut_off(bench: Bench) -> None:
    """A batch of answers where queries belong ends the connection."""
    await bench.serve()
    peer = RawPeer(bench.path)
    data = batch.encode_answers([AnswerItem(1, b"x")])
    peer.pending += struct.pack("<IBI", len(data) + 5, FrameType.BATCH, 1) + data
    peer.push()
    await until(peer.closed)
    peer.socket.close()


async def test_mutated_conversations_on_a_live_server(bench: Bench) -> None:
    """4,000 seeded connections, each with a mutated frame that is read: no exception, hang or growth, and service."""
    seed = 4
    rng = random.Random(seed)
    problems: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    server = await bench.serve()
    hello = Connection(0, "fuzz", 0.0).data_to_send()
    query = batch.encode_queries([QueryItem(n, MESSAGE, 5000) for n in range(3)])
    frame = struct.pack("<IBI", len(query) + 5, FrameType.BATCH, 1) + query
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(4000):
        # Only the last frame is mutated: the server ends a connection at the first one that makes no sense.
        peer = RawPeer(bench.path)
        data = bytearray(rng.choice((hello, frame, frame, struct.pack("<IB", 1, FrameType.PING))))
        for _ in range(rng.randint(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        peer.pending = (hello if rng.random() < 0.9 else b"") + bytes(data)
        peer.push()
        peer.socket.close()
        if number % 16 == 15:  # fewer than the backlog wait at any time
            await asyncio.sleep(0)
    await until(lambda: server.statistics().connections == 0)
    client = await bench.client()
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 5000), heard.done(0))
    await until(lambda: heard.count == 1)
    assert heard.answers[0] != [None]
    assert server.statistics().refused > 1000
    assert problems == [], f"seed {seed}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KiB


async def test_tls_between_machines(bench: Bench) -> None:
    """Another machine with the secret gets its answers over TLS, on a port that the server tells."""
    server = await bench.serve(tls=Tls("127.0.0.1", 0, secret.server_context(SECRET)))
    assert server.port
    away = Requests(endpoint(bench.path, "here", server.port), "elsewhere", ssl_context=secret.client_context(SECRET))
    away.start()
    bench.clients.append(away)
    heard = Collector()
    for number in range(2000):
        away.send(QueryItem(0, MESSAGE + number.to_bytes(4, "big"), 8000), heard.done(number))
    await until(lambda: heard.count == 2000)
    assert all(a is not None and a.message == MESSAGE + n.to_bytes(4, "big") for n, (a,) in heard.answers.items())


async def test_wrong_secret_and_plain_text_are_refused(bench: Bench) -> None:
    """A peer with another secret, without a certificate, or without TLS never gets an answer, nor a hand-over."""
    seen: list[QueryItem] = []
    server = await bench.serve(
        lambda queries, responder: seen.extend(queries), tls=Tls("127.0.0.1", 0, secret.server_context(SECRET))
    )
    wrong = Requests(
        endpoint(bench.path, "here", server.port), "elsewhere", ssl_context=secret.client_context(bytes(32))
    )
    wrong.start()
    bench.clients.append(wrong)
    heard = Collector()
    wrong.send(QueryItem(0, MESSAGE, 300), heard.done(0))
    await until(lambda: heard.count == 1)
    assert heard.answers[0] == [None]
    assert "SSL" in wrong.last_problem or "certificate" in wrong.last_problem

    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname = False
    stranger.verify_mode = ssl.CERT_NONE
    for context in (stranger, None):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context)
            writer.write(Connection(0, "stranger", 0.0).data_to_send() + batches(1, 1))
            assert await asyncio.wait_for(reader.read(), 10) == b""
            writer.close()
        except (ssl.SSLError, ConnectionError):
            pass
    assert seen == []
    assert not wrong.connected


async def test_client_refuses_a_server_without_the_secret(bench: Bench) -> None:
    """A client does not send a question to a listener that presents another certificate."""
    server = await bench.serve(tls=Tls("127.0.0.1", 0, secret.server_context(bytes(32))))
    client = Requests(endpoint(bench.path, "here", server.port), "elsewhere", ssl_context=secret.client_context(SECRET))
    client.start()
    bench.clients.append(client)
    heard = Collector()
    client.send(QueryItem(0, MESSAGE, 200), heard.done(0))
    await until(lambda: heard.count == 1)
    assert heard.answers[0] == [None]
    assert server.queries == 0


def test_other_machine_without_secret_is_refused(short_dir: Path) -> None:
    """A client for another machine cannot even be made without the secret; the error says what to copy."""
    with pytest.raises(StateError, match="needs the cluster secret") as caught:
        Requests(endpoint(short_dir / "x", "far", 4711), "here")
    assert "cluster_secret" in caught.value.hint
    assert "4711" in caught.value.where


async def test_tls_port_in_use(bench: Bench) -> None:
    """A port that somebody has is a SocketError with the address, and the Unix socket is not left behind."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(SocketError) as caught:
        await bench.serve(tls=Tls("127.0.0.1", port, secret.server_context(SECRET)))
    assert caught.value.where == f"127.0.0.1:{port}"
    assert not bench.path.exists()
    taken.close()


async def test_silent_connection_does_not_leak_descriptors(bench: Bench) -> None:
    """Two hundred connections that come and go leave no descriptor."""
    server = await bench.serve()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        RawPeer(bench.path).socket.close()
        await asyncio.sleep(0)
    await until(lambda: server.statistics().connections == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
