"""The HTTP service in front of fake processes: what it tells when they are there, silent, strange or gone."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raydns.nodes.known import Known
from raydns.nodes.metrics import Family, HistogramValue, Sample
from raydns.nodes.paths import StateDir
from raydns.nodes.web import WebServer
from raydns.nodes.web import server as server_module
from raydns.schemas.cluster import Endpoint, Machine, RingTable, Scale, Snapshot, Version, ZoneEntry
from raydns.schemas.config.telemetry import WebConfig
from raydns.schemas.errors import SocketError
from tests.nodes.web.conftest import NASTY, Client, Fakes, ingress_families, query


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Waits for a condition; fails at the deadline."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def refreshed(client: Client) -> None:
    """Lets the once-a-second bound pass without waiting for it."""
    for source in client.server._sources.all:
        await until(lambda source=source: source._task is None or source._task.done())  # type: ignore[misc]
        source._asked_at = -100.0


def series(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of an exposition, as Prometheus reads it."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics_of_ingress_and_actors(client: Client, fakes: Fakes) -> None:
    """Families of both processes come out as Prometheus reads them: counters, histograms cumulative, labels kept."""
    fakes.ingress_families = ingress_families(100)
    await fakes.start("node", "ingress", "agent")
    await refreshed(client)
    status, text, headers = await client.get("/metrics")
    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
    found = series(text)
    assert found["raydns_ingress_queries_total", (("transport", "udp"),)] == 100
    assert found["raydns_cache_hits_total", (("actor", "cache:0.g1"),)] == 10
    buckets = [
        found["raydns_ingress_latency_seconds_bucket", (("le", le), ("tier", "up"))] for le in ("0.01", "0.1", "+Inf")
    ]
    assert buckets == [0, 10, 10]
    assert found["raydns_ingress_latency_seconds_count", (("tier", "l1"),)] == 90
    assert found["raydns_ingress_latency_seconds_sum", (("tier", "up"),)] == pytest.approx(0.5)
    assert found["raydns_web_source_up", (("source", "agent"),)] == 1
    assert found["raydns_web_process_resident_bytes", (("process", "node"),)] > 1 << 20
    assert found["raydns_web_series_left_out", ()] == 0


async def test_agent_gone_leaves_its_last_metrics_with_their_age(client: Client, fakes: Fakes) -> None:
    """Without the agent, actors' metrics stay as last known, a gauge tells how old they are, the ingress's go on."""
    await fakes.start("ingress", "agent")
    await refreshed(client)
    await client.get("/metrics")
    await fakes.stop("agent")
    fakes.ingress_families = ingress_families(50)
    await refreshed(client)
    found = series((await client.get("/metrics"))[1])
    assert found["raydns_cache_hits_total", (("actor", "cache:0.g1"),)] == 10
    assert found["raydns_web_source_up", (("source", "agent"),)] == 0
    assert found["raydns_web_source_age_seconds", (("source", "agent"),)] > 0
    assert found["raydns_web_source_age_seconds", (("source", "ingress"),)] < 5
    assert found["raydns_web_source_up", (("source", "ingress"),)] == 1
    assert found["raydns_ingress_queries_total", (("transport", "udp"),)] == 50


async def test_processes_are_asked_at_most_once_a_second(client: Client, fakes: Fakes) -> None:
    """Fifty scrapes and looks at once are one question to each process."""
    await fakes.start("node", "ingress", "agent")
    await asyncio.gather(*(client.get(path) for path in ("/metrics", "/status") * 25))
    assert all(count <= 2 for count in fakes.calls.values()), fakes.calls


async def test_hostile_labels_and_broken_families(client: Client, fakes: Fakes) -> None:
    """Label values are escaped, what Prometheus could not read is left out and counted, the rest comes through."""
    fakes.agent_families = [
        Family("raydns_cache_hits_total", "counter", 'Says "hits"\nand \\ more.', [Sample({"actor": NASTY}, 1.0)]),
        Family("bad name", "counter", "", [Sample({}, 1.0)]),
        Family("raydns_cache_broken_seconds", "histogram", "", [Sample({}, 0.0, HistogramValue((1.0,), [1]))]),
        Family("raydns_cache_label", "gauge", "", [Sample({"bad label": "x"}, 1.0), Sample({"le": "x"}, 1.0)]),
        Family("raydns_cache_mixed", "gauge", "", [Sample({"a": "1"}, 1.0), Sample({"b": "2"}, 2.0), Sample({}, 3.0)]),
        Family("raydns_cache_long", "gauge", "", [Sample({"a": "x" * 5000}, 1.0)]),
    ]
    await fakes.start("ingress", "agent")
    await refreshed(client)
    text = (await client.get("/metrics"))[1]
    found = series(text)
    assert found["raydns_cache_hits_total", (("actor", NASTY),)] == 1
    assert found["raydns_web_series_left_out", ()] == 4
    assert found["raydns_cache_mixed", (("a", "1"), ("b", ""))] == 1
    assert found["raydns_cache_mixed", (("a", ""), ("b", ""))] == 3
    assert found["raydns_cache_long", (("a", "x" * 200),)] == 1
    assert all(row.startswith(("raydns_", "# HELP raydns_", "# TYPE raydns_")) for row in text.splitlines())


async def test_health_is_about_this_process_alone(client: Client, fakes: Fakes) -> None:
    """/health is 200 with nobody around, and names the engine once the ingress tells it."""
    assert (await client.json("/health"))["status"] == "ok"
    assert (await client.json("/health"))["engine"] is None
    await fakes.start("ingress")
    await refreshed(client)
    found = await client.json("/health")
    assert found["engine"] == "python"
    assert (await client.get("/health"))[0] == 200


class Answering(asyncio.DatagramProtocol):
    """A DNS server that answers anything with REFUSED."""

    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        """Keeps the way back."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """The smallest reply."""
        self.transport.sendto(data[:2] + b"\x80\x05" + data[4:], addr)


async def test_ready_needs_a_state_and_a_real_reply(client: Client, fakes: Fakes) -> None:
    """/ready is 503 with a reason at each stage, and 200 once a query over UDP is answered."""
    status, body, _ = await client.get("/ready")
    assert status == 503
    assert "the ingress does not answer" in json.loads(body)["reasons"][0]
    fakes.ingress = {"ready": False}
    await fakes.start("node", "ingress")
    await refreshed(client)
    status, body, _ = await client.get("/ready")
    assert (status, json.loads(body)["reasons"]) == (503, ["the ingress is not ready: it has no state installed yet"])
    fakes.ingress = {"ready": True}
    closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    closed.bind(("127.0.0.1", 0))
    fakes.node["addresses"] = [f"0.0.0.0:{closed.getsockname()[1]}"]
    closed.close()
    await refreshed(client)
    status, body, _ = await client.get("/ready")
    assert status == 503
    assert "127.0.0.1" in body or "refused" in body
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Answering, local_addr=("127.0.0.1", 0))
    fakes.node["addresses"] = ["nonsense", f"0.0.0.0:{transport.get_extra_info('sockname')[1]}"]
    await refreshed(client)
    assert (await client.get("/ready"))[:2] == (200, '{"ready":true,"reasons":[]}')
    fakes.node["stopping"] = True
    await refreshed(client)
    assert json.loads((await client.get("/ready"))[1])["reasons"] == ["the node is stopping"]
    transport.close()


async def test_status_has_everything_the_page_shows(client: Client, fakes: Fakes) -> None:
    """Machine, ingress, engine, staleness, actors, ring, zones and recent queries with their rooms."""
    await fakes.start("node", "ingress", "agent")
    found = await client.json("/status")
    assert found["machine"] == "m1"
    assert found["engine"] == "python"
    assert found["ingress"]["ready"] is True
    assert found["ingress"]["up"] is True
    assert found["agent"]["up"] is True
    assert 0.5 <= found["staleness_s"] < 5
    cluster = found["cluster"]
    assert (cluster["problem"], cluster["zones"], cluster["ring"]) == ("", 2, {"0": 1.0})
    assert cluster["actors"][0]["statistics"]["in_flight"] == 2.0
    assert found["rates"]["in_flight"] == 3
    (row,) = found["recent"]
    assert (row["name"], row["type"], row["rcode"], row["transport"]) == ("www.example.", "A", "NOERROR", "udp")
    assert [(r["room"], r["at_us"], r["duration_us"]) for r in row["rooms"]] == [
        ("ingress", 0, 900),
        ("cache", 100, 700),
        ("query", 200, 500),
    ]


async def test_rates_come_from_counters(client: Client, fakes: Fakes) -> None:
    """Two readings of the ingress's counters give queries a second, shares, and windowed quantiles."""
    await fakes.start("node", "ingress", "agent")
    history = client.server._history
    await client.json("/status")
    await until(lambda: len(history._readings) >= 1)
    fakes.ingress_families = ingress_families(1000)
    await until(lambda: history._readings[-1].queries == 1000)
    found = (await client.json("/status"))["rates"]
    assert found["queries_per_second"] > 100
    assert found["answered_here"] == 0.9
    assert found["latency_ms"]["p50"] < 1
    assert 10 < found["latency_ms"]["p99"] <= 100
    assert set(found["answers"]) == {"l1", "up"}


async def test_without_agent_the_disk_remembers(client: Client, fakes: Fakes, state_dir: StateDir) -> None:
    """With the agent gone, actors, ring and zones are those of the snapshot on disk, marked as remembered."""
    snapshot = Snapshot(
        Version(1, 4),
        {},
        [Machine("m1", "n", "127.0.0.1")],
        [Endpoint("zone", 1, 2, "n", "m1", "/s")],
        RingTable(1, 0, [1 << 62, 1 << 63], [0, 1], [1, 0]),
        [ZoneEntry(b"\x00", 0, 0, 1, 1, None)],
        [],
        Scale(1, 1, 1, 0),
    )
    Known(state_dir).save(snapshot)
    await fakes.start("ingress")
    await client.get("/")
    await until(lambda: client.server._sources.known.up)
    cluster = (await client.json("/status"))["cluster"]
    assert cluster["remembered"] is True
    assert [(a["name"], a["state"]) for a in cluster["actors"]] == [("zone:1.g2", "unknown")]
    assert cluster["zones"] == 1
    assert cluster["ring"] == {"0": 0.75, "1": 0.25}
    assert "nobody is there" in cluster["problem"]


async def test_strange_answers_do_not_break_the_status(client: Client, fakes: Fakes) -> None:
    """Missing, wrong and hostile values from the other processes give a status that is JSON, and never a 500."""
    fakes.node = {"addresses": 5, "ingress": [], "bytes": b"\xff", "nan": float("nan")}
    fakes.ingress = {"ready": "yes", "engine": ["x"], "in_flight": "many", "deep": [[[[[[[[[[[[1]]]]]]]]]]]]}
    fakes.agent = {
        "actors": 7,
        "problems": NASTY,
        "staleness_s": "old",
        "cluster": {"actors": [1, {"name": NASTY}], "zones": []},
    }
    fakes.queries = [
        {},
        query(NASTY, rooms=b"torn", qtype="x", rcode=4711, time_us=None),
        query("a.", rooms=5),
        query("b.", rooms="zz"),
    ]
    fakes.queries += [query("health.raydns."), query("c.", rooms=b"\xff" * 16)]
    await fakes.start("node", "ingress", "agent")
    status, body, _ = await client.get("/status")
    assert status == 200
    found = json.loads(body)
    assert [row["name"] for row in found["recent"]] == ["", NASTY, "a.", "b.", "c."]
    assert found["recent"][1]["rcode"] == "RCODE4711"
    assert found["recent"][4]["rooms"][0]["room"] == "255"
    assert found["staleness_s"] is None
    assert (await client.get("/metrics"))[0] == 200
    assert (await client.get("/ready"))[0] == 503


async def test_slow_process_does_not_hold_up_the_page(client: Client, fakes: Fakes, state_dir: StateDir) -> None:
    """A stopped agent (connects, never answers) costs half a second, not its time-out."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(state_dir.agent_socket))
    listener.listen()
    await fakes.start("node", "ingress")
    start = time.monotonic()
    found = await client.json("/status")
    assert time.monotonic() - start < 3
    assert found["agent"]["up"] is False
    assert found["ingress"]["up"] is True
    listener.close()


async def test_page_is_served_with_a_policy_for_exactly_itself(client: Client) -> None:
    """The page is one file without outside references; its policy lets only its own style and script run."""
    status, text, headers = await client.get("/")
    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|\son[a-z]+=", text)
    assert "style=" not in text
    assert 'name="viewport"' in text
    assert "prefers-color-scheme: dark" in text
    assert len(text) < 64_000
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cache-Control"] == "no-store"


async def test_rebound_names_and_wrong_methods_are_refused(client: Client, fakes: Fakes) -> None:
    """On loopback only localhost and addresses are known as hosts; other methods and paths are 405 and 404."""
    await fakes.start("node", "ingress", "agent")
    port = client.server.port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "", "[::1", "localhost.evil"):
        assert (await client.get("/status", Host=host))[0] == 421, host
    for host in (f"127.0.0.1:{port}", "localhost", f"localhost:{port}", "[::1]:80", "LOCALHOST."):
        assert (await client.get("/status", Host=host))[0] == 200, host
    assert (await client.get("/<script>"))[0] == 404
    async with client._session.post(f"http://127.0.0.1:{port}/status", data=b"x" * 5000) as answer:
        assert answer.status == 405
    assert (await client.get("/../etc/passwd"))[0] == 404


async def test_port_in_use_says_what_to_do(state_dir: StateDir) -> None:
    """A port that somebody has, and an address that is not ours, are SocketErrors with address and hint."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    with pytest.raises(SocketError, match="in use") as caught:
        await WebServer(WebConfig(listen=f"127.0.0.1:{port}"), state_dir).start()
    assert caught.value.where == f"127.0.0.1:{port}"
    assert "web.listen" in caught.value.hint
    taken.close()
    with pytest.raises(SocketError, match="not this machine's"):
        await WebServer(WebConfig(listen=f"192.0.2.1:{port}"), state_dir).start()


async def test_ipv6_and_restart_on_the_same_port(state_dir: StateDir) -> None:
    """The service listens on IPv6, and a closed one's port is free for the next at once."""
    first = WebServer(WebConfig(listen="[::1]:0"), state_dir)
    await first.start()
    assert first.url == f"http://[::1]:{first.port}/"
    port = first.port
    await first.close()
    await first.close()
    second = WebServer(WebConfig(listen=f"[::1]:{port}"), state_dir)
    await second.start()
    assert second.port == port
    await second.close()


async def test_a_bug_in_a_route_is_a_500_without_insides(
    client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception is logged here and told to nobody."""

    def broken(*_: object, **__: object) -> None:
        raise ValueError("secret path")

    monkeypatch.setattr("raydns.nodes.web.status.build", broken)
    status, text, _ = await client.get("/status")
    assert status == 500
    assert "secret" not in text
    assert "secret path" in caplog.text


def test_only_this_room_imports_aiohttp() -> None:
    """Nothing else of nodes/ brings aiohttp in: the ingress and the supervisor's start stay light."""
    code = """
import sys
import raydns.nodes.metrics, raydns.nodes.control, raydns.nodes.logs, raydns.nodes.tracing, raydns.nodes.known
import raydns.nodes.streams.requests, raydns.nodes.streams.server
assert "aiohttp" not in sys.modules
assert "ray" not in sys.modules
import raydns.nodes.web
assert "aiohttp" in sys.modules
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={**os.environ})


def test_page_is_package_data() -> None:
    """The page lies beside the code, where package data is taken from."""
    assert (Path(server_module.__file__).parent / "page.html").is_file()
