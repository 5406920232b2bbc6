"""Upstreams that are slow, silent, lying or dead (issue: what it must show, 4), through the whole node."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
import yaml

from . import node as nodes
from .load import Load, Question, query
from .node import Node
from .peers import Nsd, Scripted, a_reply

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

GOOD = "203.0.113.1"
LIE = "203.0.113.66"


def wrong_id(message: bytes) -> list[bytes]:
    """Answers with another ID."""
    reply = a_reply(message, LIE)
    return [struct.pack("!H", (int.from_bytes(reply[:2], "big") + 1) & 0xFFFF) + reply[2:]]


def wrong_question(message: bytes) -> list[bytes]:
    """Answers another question."""
    reply = bytearray(a_reply(message, LIE))
    reply[13] ^= 1
    return [bytes(reply)]


def out_of_bailiwick(message: bytes) -> list[bytes]:
    """Answers rightly and adds an address of somebody else's name to the answer."""
    reply = bytearray(a_reply(message, GOOD))
    reply[7] = 2
    victim = b"\x03www\x08upstream\x04test\x00"
    return [bytes(reply) + victim + b"\x00\x01\x00\x01\x00\x00\x0e\x10\x00\x04" + socket.inet_aton(LIE)]


def silent(message: bytes) -> list[bytes]:
    """Says nothing."""
    return []


def refusing(message: bytes) -> list[bytes]:
    """REFUSED to everything."""
    end = message.index(b"\0", 12) + 5
    return [message[:2] + b"\x81\x85\x00\x01" + b"\x00" * 6 + message[12:end]]


def truncating(message: bytes) -> list[bytes]:
    """TC to everything, over TCP as well."""
    end = message.index(b"\0", 12) + 5
    return [message[:2] + b"\x83\x80\x00\x01" + b"\x00" * 6 + message[12:end]]


def garbage(message: bytes) -> list[bytes]:
    """The right header and question, then noise."""
    return [a_reply(message, LIE)[:-9]]


def slow(message: bytes) -> list[bytes]:
    """Right, but after 700 ms."""
    time.sleep(0.7)
    return [a_reply(message, GOOD)]


def right(message: bytes) -> list[bytes]:
    """Right at once."""
    return [a_reply(message, GOOD)]


FAULTS: dict[str, Callable[[bytes], list[bytes]]] = {
    "wrong-id": wrong_id,
    "wrong-question": wrong_question,
    "silent": silent,
    "refusing": refusing,
    "truncating": truncating,
    "garbage": garbage,
    "slow": slow,
}


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Scripted]]:
    """One bad server a fault, and a good one."""
    made = {
        name: Scripted(answer) for name, answer in [*FAULTS.items(), ("right", right), ("bailiwick", out_of_bailiwick)]
    }
    yield made
    for server in made.values():
        server.stop()


@pytest.fixture(scope="module")
def tried(servers: dict[str, Scripted], upstream: Nsd) -> Iterator[Node]:
    """A node with a rule a fault: the bad server beside the good one, and each bad one alone."""
    good = {"address": f"127.0.0.1:{servers['right'].port}"}
    rules = [{"suffix": f"{n}.test.", "upstreams": [{"address": f"127.0.0.1:{servers[n].port}"}, good]} for n in FAULTS]
    rules += [{"suffix": f"only-{n}.test.", "upstreams": [{"address": f"127.0.0.1:{servers[n].port}"}]} for n in FAULTS]
    rules.append({"suffix": "bailiwick.test.", "upstreams": [{"address": f"127.0.0.1:{servers['bailiwick'].port}"}]})
    rules.append({"suffix": "right.test.", "upstreams": [good]})
    rules.append({"suffix": "upstream.test.", "upstreams": [{"address": f"127.0.0.1:{upstream.port}"}]})
    made = nodes.make({"forward": {"rules": rules, "timeout_s": 3}, "llm": {"enabled": False}})
    try:
        yield nodes.start(made)
    finally:
        nodes.end(made)


def test_one_cold_name_asked_two_hundred_times_at_once_costs_one_upstream_query(
    tried: Node, servers: dict[str, Scripted]
) -> None:
    """Proves single flight from two hundred clients' sockets to one packet upstream, and two hundred right answers."""
    name = f"once-{os.getpid()}.right.test."
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
    try:
        for number, sock in enumerate(sockets):
            sock.settimeout(5)
            sock.sendto(query(name, 1, number), tried.address)
        for number, sock in enumerate(sockets):
            answer = sock.recv(4096)
            assert answer[:2] == struct.pack("!H", number)
            assert answer[-4:] == socket.inet_aton(GOOD)
    finally:
        for sock in sockets:
            sock.close()
    asked = {q: n for q, n in servers["right"].asked.items() if b"once-" in q}
    assert list(asked.values()) == [1]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_bad_server_beside_a_good_one_costs_no_answer(tried: Node, fault: str) -> None:
    """Proves that the other server's answers come through in time, and that no lie does."""

    def check(question: Question, answer: bytes) -> str:
        return "" if answer[-4:] == socket.inet_aton(GOOD) or answer[3] & 15 else f"{question.name}: {answer[-4:]!r}"

    load = Load(tried.address, [], 20, pick=lambda n: Question(f"b{n}.{fault}.test.", kind="cold"), check=check)
    result = await load.run(2.0)
    assert result.wrong == []
    assert result.answered["cold"] == result.sent["cold"]
    assert result.rcodes["cold", 0] >= 0.9 * result.sent["cold"], result.rcodes
    assert result.slowest_s < 3


@pytest.mark.parametrize("fault", [f for f in FAULTS if f != "slow"])
def test_a_bad_server_alone_gives_servfail_with_the_reason_and_nothing_wrong_is_kept(tried: Node, fault: str) -> None:
    """Proves that a client reads a reason within its deadline, and that the lie is in no cache afterwards."""
    for _ in range(2):
        answer = tried.dig("+tries=1", "+time=6", f"www.only-{fault}.test", "A")
        assert "status: SERVFAIL" in answer or (fault == "refusing" and "status: REFUSED" in answer)
        assert "EDE: " in answer
        assert LIE not in answer


def test_what_is_out_of_bailiwick_is_neither_passed_on_nor_kept(tried: Node) -> None:
    """Proves that an address slipped into an answer reaches neither the client nor the cache."""
    answer = tried.dig("x.bailiwick.test", "A")
    assert LIE not in answer
    assert tried.short("www.upstream.test", "A") == ["198.51.100.1"]


def test_breakers_of_bad_servers_open_and_close_again_within_thirty_seconds(tried: Node) -> None:
    """Proves recovery: a dead server's breaker opens, and once it answers again it serves within 30 s."""
    from .peers import free_port

    port = free_port()
    raw = yaml.safe_load(tried.config_path.read_text())
    raw["forward"]["rules"].append({"suffix": "revived.example.", "upstreams": [{"address": f"127.0.0.1:{port}"}]})
    tried.config_path.write_text(yaml.safe_dump(raw))
    tried.cli("config", "reload", "--config", str(tried.config_path))
    for number in range(12):
        assert "status: SERVFAIL" in tried.dig("+tries=1", "+time=6", f"d{number}.revived.example", "A")
    server = Scripted(right, port)
    try:
        deadline = time.monotonic() + 30
        number = 100
        while tried.short("+tries=1", f"d{number}.revived.example", "A") != [GOOD]:
            assert time.monotonic() < deadline, "not recovered after 30 s"
            number += 1
            time.sleep(0.2)
    finally:
        server.stop()


async def test_a_hundred_broken_names_and_ten_thousand_spoofed_replies_harm_nobody_else(
    tried: Node, servers: dict[str, Scripted]
) -> None:
    """Proves that while 100 names hang on a silent server and spoofed replies pour in, others are answered as fast."""
    broken = Load(tried.address, [], 50, pick=lambda n: Question(f"h{n % 100}.only-silent.test.", kind="broken"))
    honest = Load(tried.address, [], 100, pick=lambda n: Question(f"o{n}-{os.getpid()}.right.test.", kind="cold"))
    spoofing = asyncio.to_thread(spoof, servers["right"].port)
    done = await asyncio.gather(broken.run(3.0), honest.run(3.0), spoofing)
    result = done[1]
    assert result.rcodes == {("cold", 0): result.sent["cold"]}
    assert not result.lost
    assert result.slowest_s < 1.5
    assert LIE not in tried.dig("spoofed.right.test", "A")


def spoof(server_port: int) -> None:
    """Ten thousand forged replies, from the loopback, to ports in the range that query actors use."""
    message = query("spoofed.right.test.", 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for number in range(10_000):
            forged = struct.pack("!H", number * 7 % 65536) + a_reply(message, LIE)[2:]
            sock.sendto(forged, ("127.0.0.1", 10_000 + number * 5 % 55_000))
            if number % 100 == 0:
                time.sleep(0.002)
