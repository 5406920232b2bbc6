"""What clients notice when processes die (issue: what it must show, 2): of zone and cached answers, nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.load import parse

from . import node as nodes
from .conftest import forward_to
from .load import Load, Question, Result, until
from .node import Node
from .peers import Nsd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

ZONE = [
    Question("www.raydns.example.", kind="zone"),
    Question("a.wild.raydns.example.", kind="zone"),
    Question("no.raydns.example.", kind="zone"),
]
CACHED = [Question(f"k{i}.warm.upstream.test.", kind="cached") for i in range(50)]


@pytest.fixture(scope="module")
def victim(upstream: Nsd) -> Iterator[Node]:
    """A node of its own for the tests that hurt it."""
    made = nodes.make({"forward": {"rules": [forward_to(upstream.port)], "timeout_s": 3}, "llm": {"enabled": False}})
    try:
        yield nodes.start(made)
    finally:
        nodes.end(made)


def pick(number: int) -> Question:
    """40 % zone, 40 % cached, 20 % forwarded and cold."""
    if number % 5 < 2:
        return ZONE[number % len(ZONE)]
    if number % 5 < 4:
        return CACHED[number % len(CACHED)]
    return Question(f"c{number}-{os.getpid()}.cold.upstream.test.", kind="cold")


async def under_load(
    node: Node, fault: Callable[[], Awaitable[None]], *, rate: float = 500, settle: float = 2.0
) -> Result:
    """Warms the cache, then asks at ``rate`` a second from a second before the fault until ``settle`` s after it."""
    warm = await Load(node.address, CACHED, 400, pick=lambda n: CACHED[n % len(CACHED)]).run(0.5)
    assert not warm.lost
    load = Load(node.address, [], rate, pick=pick)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(1.0)
    await fault()
    await asyncio.sleep(settle)
    load.stop()
    return await running


def judge(result: Result, *, gap: bool = False) -> None:
    """Zone and cached answers: none lost, all good; cold ones: answered or SERVFAIL. ``gap``: the ingress died."""
    assert result.lost_of("zone") == []
    assert result.lost_of("cached") == []
    assert result.rcodes["cached", 0] == result.answered["cached"]
    assert result.rcodes["zone", 2] == 0
    if not gap:
        assert result.retried["zone"] == result.retried["cached"] == 0
    assert {code for kind, code in result.rcodes if kind == "cold"} <= {0, 2}
    assert result.sent["cold"] - result.answered["cold"] == len(result.lost_of("cold"))


@pytest.mark.parametrize("kind", ["query:0", "query:1", "cache:0", "zone:0", "health:0", "controller", "agent"])
async def test_a_killed_actor_costs_no_zone_or_cached_answer_and_comes_back(victim: Node, kind: str) -> None:
    """Proves for each actor that SIGKILL loses nothing that the machine holds, and that Ray brings it back."""
    await asyncio.to_thread(victim.wait_settled)
    pid = process_of(victim, kind)

    async def fault() -> None:
        os.kill(pid, signal.SIGKILL)

    result = await under_load(victim, fault)
    judge(result)
    await until(lambda: back(victim, kind, pid), 30, f"{kind} is back")
    assert victim.short("after-" + kind.replace(":", "-") + ".cold.upstream.test", "A") == ["198.51.100.2"]


def process_of(node: Node, kind: str) -> int:
    """The process of an actor by the start of its name; 0 while it cannot be told."""
    status = node.ask_agent("status")
    if kind == "agent":
        return int(status["pid"])
    if kind == "controller":
        return int(status["cluster"].get("pid", 0))
    return next((int(a["statistics"].get("pid", 0)) for n, a in node.actors().items() if n.startswith(kind)), 0)


def back(node: Node, kind: str, old: int) -> bool:
    """Whether another process has taken the actor's place."""
    try:
        new = process_of(node, kind)
    except Exception:
        return False
    return new not in (0, old)


async def test_a_killed_ingress_is_back_within_a_second(victim: Node) -> None:
    """Proves that with one retry no zone answer is lost, and that the cache fills again through the shards."""
    old = victim.ask_ingress("status")["pid"]

    async def fault() -> None:
        os.kill(old, signal.SIGKILL)

    result = await under_load(victim, fault, settle=3.0)
    judge(result, gap=True)
    assert victim.ask_ingress("status")["pid"] != old


async def test_a_killed_supervisor_is_missed_by_nobody_and_the_next_finds_everything(victim: Node) -> None:
    """Proves that the ingress outlives its supervisor, and that a new one takes over its ingress, sockets and Ray."""
    ingress = victim.ask_ingress("status")["pid"]
    supervisor = victim.ask_supervisor("status")["pid"]
    ray = raylet(victim)

    async def fault() -> None:
        os.kill(supervisor, signal.SIGKILL)
        await asyncio.sleep(1.0)
        await asyncio.to_thread(victim.cli, "node", "start", "--config", str(victim.config_path))

    port = victim.port
    result = await under_load(victim, fault)
    judge(result)
    assert victim.ask_supervisor("status")["pid"] != supervisor
    assert victim.ask_ingress("status")["pid"] == ingress
    assert victim.port == port
    assert raylet(victim) == ray
    # It must really hold them: an ingress killed now comes back on the same port.
    os.kill(ingress, signal.SIGKILL)
    await until(lambda: bool(victim.short("+time=1", "+tries=1", "www.raydns.example", "A")), 10, "the ingress is back")


def raylet(node: Node) -> int:
    """Process of this node's raylet."""
    return next(int(line.split()[0]) for line in node.processes() if "raylet/raylet" in line)


async def test_with_ray_stopped_zone_and_cached_answers_go_on_even_from_a_new_ingress(victim: Node) -> None:
    """Proves rule 1: raylet and GCS stand still (SIGSTOP), and the machine answers what it holds."""
    await asyncio.to_thread(victim.wait_settled)
    stopped = [int(line.split()[0]) for line in victim.processes() if "raylet/raylet" in line or "gcs_server" in line]
    assert len(stopped) == 2

    async def fault() -> None:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    try:
        result = await under_load(victim, fault, settle=5.0)
        judge(result)
        ingress = victim.ask_ingress("status")["pid"]
        os.kill(ingress, signal.SIGKILL)
        await until(
            lambda: victim.short("+time=1", "+tries=1", "host.wild.raydns.example", "A") == ["192.0.2.43"],
            10,
            "a new ingress answers from disk",
        )
        assert victim.short("k1.warm.upstream.test", "A") == ["198.51.100.3"]  # through the shards, which live
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(victim.wait_settled)


async def test_a_killed_raylet_is_replaced_and_the_cluster_comes_back(victim: Node) -> None:
    """Proves that losing Ray altogether costs no answer that the machine holds, and that all actors return."""
    await asyncio.to_thread(victim.wait_settled)
    old = raylet(victim)
    # Its actors die with it: what is cached only in the shards has to be in L1 to survive, as here it is.

    async def fault() -> None:
        os.kill(old, signal.SIGKILL)

    result = await under_load(victim, fault, settle=5.0)
    judge(result)
    await until(
        lambda: any("raylet/raylet" in p and not p.startswith(f"{old} ") for p in victim.processes()), 60, "Ray is back"
    )
    await asyncio.to_thread(victim.wait_settled, 90)
    assert victim.short("after-raylet.cold.upstream.test", "A") == ["198.51.100.2"]


@pytest.mark.peer
def test_a_hundred_takeovers_of_the_ingress_lose_no_query(victim: Node) -> None:
    """Proves that a hundred new ingresses one after the other answer everything: sent = answered, no kernel drop.

    At half of the ingress's maximum, but at most 4,000 a second: starting a hundred processes takes one of two
    cores, and beyond that it is the generator that cannot keep up.
    """
    questions = victim.folder / "questions.txt"
    questions.write_text("".join(f"{q.name} A\n" for q in ZONE))
    most = int(parse(dnsperf(victim, questions, "-l", "3").communicate()[0]).queries_per_second)
    before = kernel_drops(victim.port)
    # A query may wait while a new process starts on the same two cores, but must not be lost.
    load = dnsperf(victim, questions, "-l", "300", "-Q", str(min(most // 2, 4000)), "-q", "10000", "-t", "10")
    try:
        for _ in range(100):
            victim.ask_supervisor("takeover")
    finally:
        load.send_signal(signal.SIGINT)
        told = load.communicate(timeout=30)[0]
    result = parse(told)
    assert result.sent > 20_000, told
    assert result.lost == 0, told
    # Those under way when it was told to end were not waited for: it counts them apart.
    assert result.completed + result.interrupted == result.sent, told
    assert result.interrupted < most // 2, told
    assert kernel_drops(victim.port) == before


def dnsperf(node: Node, questions: Path, *arguments: str) -> subprocess.Popen[str]:
    """A running dnsperf against a node."""
    # Its own buffers must hold what comes at once when a new ingress works off the queue: default ones lose replies.
    roomy = ["-b", "8192", "-c", "8"]
    command = ["dnsperf", "-s", "127.0.0.1", "-p", str(node.port), "-d", str(questions), *roomy, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def kernel_drops(port: int) -> int:
    """Datagrams that the kernel threw away at our sockets since they were bound."""
    total = 0
    for table in ("/proc/net/udp", "/proc/net/udp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rsplit(":", 1)[1], 16) == port:
                total += int(fields[-1])
    return total


def test_nothing_of_it_is_left_in_the_log(victim: Node) -> None:
    """Proves that all of the above left no traceback in the node's own logs."""
    assert "Traceback" not in victim.logs(100_000)
