"""Packets that are no queries, at a running node (issue: what it must show, 7): they are counted, and harm nobody.

Invariant: to whatever octets, the node replies with a response of the same ID or with silence, over UDP and TCP;
in between and afterwards every honest question is answered, and no log holds a traceback.
"""

from __future__ import annotations

import random
import socket
import struct
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from raydns.nodes.metrics import Family
from tests.nodes.ingress.test_fuzz import mutant

from .load import query
from .node import Node

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SEED = 20_261_126
PACKETS = 1500  # a transport
BURST = 50
ORIGINALS = [
    query("www.raydns.example.", 1),
    query("a.very.long.name.with.many.labels.wild.raydns.example.", 28),
    query("host.old.raydns.example.", 64),
    query("big.raydns.example.", 1),
    query("www.upstream.test.", 1),
    query(".", 2),
]


def packets(transport: str) -> Iterator[bytes]:
    """Seeded mutants; the seed stands in the file, so that a failure can be had again."""
    rng = random.Random(f"{SEED} {transport}")
    for number in range(PACKETS):
        data = mutant(rng, rng.choice(ORIGINALS))
        # An ID of its own where it has one at all, so that replies can be told apart.
        yield struct.pack("!H", number) + data[2:] if len(data) > 2 else data


def counted(node: Node, family: str) -> float:
    """The sum of one of the ingress's metrics."""
    families = msgspec.msgpack.decode(node.ask_ingress("metrics")["families"], type=list[Family])
    return sum(sample.value for found in families if found.name == family for sample in found.samples)


def check(reply: bytes, sent: dict[int, bytes]) -> int:
    """A reply belongs to one of our packets, is a response, and is none to a response; its rcode."""
    number = int.from_bytes(reply[:2], "big")
    assert number in sent, reply
    assert len(reply) >= 12
    assert reply[2] & 0x80
    assert not sent[number][2] & 0x80, (sent[number], reply)
    return reply[3] & 15


def assert_answers(node: Node) -> None:
    """The node answers honest questions of each kind, over both transports, at once."""
    for transport in ("+notcp", "+tcp"):
        once = [transport, "+tries=1", "+time=2"]
        assert node.short(*once, "www.raydns.example", "A") == ["192.0.2.80", "192.0.2.81"]
        assert node.short(*once, "www.upstream.test", "A") == ["198.51.100.1"]


def assert_quiet(node: Node, malformed: float, faults: float) -> None:
    """The mutants were counted as such; no exception reached the last guard, and none any log."""
    assert counted(node, "raydns_ingress_malformed_total") - malformed > PACKETS / 10
    assert counted(node, "raydns_ingress_faults_total") == faults
    assert "Traceback" not in node.logs(100_000)
    assert "Traceback" not in node.actor_logs()


def test_mutants_over_udp(node: Node) -> None:
    """Proves the invariant for datagrams, with honest questions between the bursts."""
    malformed, faults = counted(node, "raydns_ingress_malformed_total"), counted(node, "raydns_ingress_faults_total")
    pid = node.ask_ingress("status")["pid"]
    rcodes: Counter[int] = Counter()
    sent: dict[int, bytes] = {}
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as honest,
    ):
        client.connect(node.address)
        client.setblocking(False)
        honest.connect(node.address)
        honest.settimeout(2)
        for number, data in enumerate(packets("udp")):
            sent[number] = data.ljust(3, b"\0")
            client.send(data)
            if number % BURST == BURST - 1:
                honest.send(query("www.raydns.example.", 1, number))
                answer = honest.recv(4096)  # and with it all that came before has been read
                assert answer[:4] == struct.pack("!HBB", number, 0x85, 0x80)
                rcodes.update(check(reply, sent) for reply in drained(client))
    assert rcodes[1] > PACKETS / 20, rcodes  # FORMERR
    assert rcodes.total() < PACKETS  # some get no reply at all: too short, or responses themselves
    assert_answers(node)
    assert_quiet(node, malformed, faults)
    assert node.ask_ingress("status")["pid"] == pid


def drained(client: socket.socket) -> Iterator[bytes]:
    """Replies that are there."""
    while True:
        try:
            yield client.recv(65535)
        except BlockingIOError:
            return


def test_mutants_over_tcp(node: Node) -> None:
    """Proves the invariant for streams: what stood before a mutant is answered, and what stands behind it as well,
    unless the mutant got silence and cost its connection. Frames that are cut or shifted harm only their connection.
    """
    malformed, faults = counted(node, "raydns_ingress_malformed_total"), counted(node, "raydns_ingress_faults_total")
    rng = random.Random(SEED)
    rcodes: Counter[int] = Counter()
    before, behind = query("www.raydns.example.", 1, 0xFFFE), query("no.raydns.example.", 1, 0xFFFF)
    for number, data in enumerate(packets("tcp")):
        stream = b"".join(struct.pack("!H", len(part)) + part for part in (before, data, behind))
        damage, at = rng.randrange(10), rng.randrange(len(stream))
        if damage == 0:
            exchange(node, stream[:at])
        elif damage == 1:
            exchange(node, stream[:at] + rng.randbytes(3) + stream[at:])
        else:
            sent = {0xFFFE: before, number: data.ljust(3, b"\0"), 0xFFFF: behind}
            replies = {int.from_bytes(reply[:2], "big"): check(reply, sent) for reply in exchange(node, stream)}
            assert replies[0xFFFE] == 0, data.hex()
            assert replies.get(0xFFFF) == 3 or (number not in replies and 0xFFFF not in replies), data.hex()
            rcodes[replies.get(number, -1)] += 1
    assert rcodes[1] > PACKETS / 20, rcodes  # FORMERR
    assert rcodes[-1] > 0, rcodes  # silence
    assert_answers(node)
    assert_quiet(node, malformed, faults)


def exchange(node: Node, stream: bytes) -> list[bytes]:
    """Sends octets over a connection of its own, says that this was all, and reads frames until the node closes."""
    data = b""
    with socket.create_connection(node.address, timeout=10) as connection:
        try:
            connection.sendall(stream)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65535):
                data += part
        except (ConnectionResetError, BrokenPipeError):
            pass  # closed over what it read: that is its right
    frames = []
    while len(data) >= 2:
        size = int.from_bytes(data[:2], "big")
        frames.append(data[2 : 2 + size])
        data = data[2 + size :]
    return [frame for frame in frames if len(frame) >= 2]
