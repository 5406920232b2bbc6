"""Changing a running node under load (issue: what it must show, 3): no query lost, no mixture of old and new."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import dns.message
import pytest
import yaml

from . import node as nodes
from .conftest import forward_to
from .load import Load, Question, until
from .node import Node
from .peers import Nsd

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def changing(upstream: Nsd) -> Iterator[Node]:
    """A node of its own for the tests that change its configuration."""
    made = nodes.make({"forward": {"rules": [forward_to(upstream.port)]}, "llm": {"enabled": False}})
    try:
        yield nodes.start(made)
    finally:
        nodes.end(made)


def cold(number: int) -> Question:
    """A name that nobody asked before."""
    return Question(f"s{number}-{os.getpid()}.cold.upstream.test.", kind="cold")


async def test_scaling_the_pool_up_and_down_under_load_loses_no_query(changing: Node) -> None:
    """Proves that `raydns scale query=4` and back again answers every single cold query."""
    config = str(changing.config_path)
    load = Load(changing.address, [], 300, pick=cold)
    running = asyncio.create_task(load.run())
    await asyncio.sleep(0.5)
    await asyncio.to_thread(changing.cli, "scale", "query=4", "--config", config)
    await until(lambda: ready(changing) == 4, 30, "four query actors are ready")
    await asyncio.sleep(1.0)
    await asyncio.to_thread(changing.cli, "scale", "query=2", "--config", config)
    await until(lambda: ready(changing) == 2 and len(queries(changing)) == 2, 40, "two query actors are left")
    load.stop()
    result = await running
    assert result.sent["cold"] > 500
    assert result.rcodes == {("cold", 0): result.sent["cold"]}
    assert not result.lost


def queries(node: Node) -> list[str]:
    """States of the query actors."""
    return [a["state"] for n, a in node.actors().items() if n.startswith("query:")]


def ready(node: Node) -> int:
    """Query actors that are ready."""
    return queries(node).count("ready")


def zone_text(version: int) -> str:
    """A zone in which every record of an answer tells its version."""
    return f"""$ORIGIN mix.example.
$TTL 60
@ IN SOA ns hostmaster {version} 3600 600 86400 60
@ IN NS ns
ns IN A 192.0.2.{version}
multi IN TXT "v{version}"
multi IN TXT "second v{version}"
chain IN CNAME link
link IN CNAME multi
"""


async def test_reloading_a_zone_under_load_mixes_nothing_and_loses_nothing(changing: Node) -> None:
    """Proves that each answer is of one version, that versions never go back, and that every query is answered."""
    file = changing.folder / "mix.example.zone"
    file.write_text(zone_text(1))
    config = str(changing.config_path)
    changing.cli("zone", "load", str(file), "--origin", "mix.example.", "--config", config)
    seen: list[int] = []

    def check(question: Question, answer: bytes) -> str:
        texts = [r.to_text() for rrset in dns.message.from_wire(answer).answer for r in rrset if rrset.rdtype == 16]
        versions = {text.strip('"').rsplit("v", 1)[1] for text in texts}
        if len(texts) != 2 or len(versions) != 1:
            return f"{question.name}: {texts}"
        seen.append(int(versions.pop()))
        return ""

    asked = [Question("multi.mix.example.", 16), Question("chain.mix.example.", 16)]
    load = Load(changing.address, asked, 300, check=check)
    running = asyncio.create_task(load.run())
    for version in range(2, 8):
        file.write_text(zone_text(version))
        await asyncio.to_thread(changing.cli, "zone", "load", str(file), "--origin", "mix.example.", "--config", config)
    load.stop()
    result = await running
    assert result.answered["zone"] == result.sent["zone"]
    assert not result.retried
    assert not result.wrong
    assert {2, 7} <= set(seen)
    shown = changing.json("zone", "show", "mix.example.", "--config", config)
    assert shown["zone"]["serial"] == 7


async def test_a_faulty_zone_keeps_the_old_one_and_the_operator_reads_every_fault(changing: Node) -> None:
    """Proves that a reload with errors changes nothing and names file, line and what is wrong, all at once."""
    file = changing.folder / "keep.example.zone"
    good = zone_text(1).replace("mix.example", "keep.example")
    file.write_text(good)
    config = str(changing.config_path)
    changing.cli("zone", "load", str(file), "--origin", "keep.example.", "--config", config)
    file.write_text(good + "bad1 IN A 300.1.1.1\nbad2 IN MX mail\n")
    done = changing.cli("zone", "load", str(file), "--origin", "keep.example.", "--config", config, check=False)
    assert done.returncode == 3
    assert "keep.example.zone:10" in done.stderr
    assert "keep.example.zone:11" in done.stderr
    assert "Traceback" not in done.stderr
    assert changing.short("ns.keep.example", "A") == ["192.0.2.1"]


async def test_reloading_the_configuration_under_load_applies_and_loses_nothing(changing: Node) -> None:
    """Proves that a new forward rule answers after `config reload`, while every other query goes on being answered."""
    raw = yaml.safe_load(changing.config_path.read_text())
    rule = dict(raw["forward"]["rules"][0])
    assert "status: REFUSED" in changing.dig("www.added.example", "A")
    raw["forward"]["rules"].append({**rule, "suffix": "added.example."})
    load = Load(changing.address, [], 300, pick=lambda n: Question("www.raydns.example.") if n % 2 else cold(10**6 + n))
    running = asyncio.create_task(load.run())
    await asyncio.sleep(0.3)
    changing.config_path.write_text(yaml.safe_dump(raw))
    await asyncio.to_thread(changing.cli, "config", "reload", "--config", str(changing.config_path))
    await asyncio.sleep(0.7)
    load.stop()
    result = await running
    assert result.answered.total() == result.sent.total()
    assert {code for _, code in result.rcodes} == {0}
    # NSD refuses what it does not serve: that it was asked shows that the rule is in force.
    assert "the upstream answered refused" in changing.dig("www.added.example", "A")


async def test_a_flush_reaches_every_tier(changing: Node) -> None:
    """Proves that after `cache flush` the next answer is fetched anew, for a name and for a subtree."""
    config = str(changing.config_path)
    for arguments, name in ((["f1.cold.upstream.test."], "f1"), (["cold.upstream.test.", "--subtree"], "f2")):
        question = f"{name}.cold.upstream.test"
        changing.short(question, "A")
        await until(
            lambda q=question: " 300 IN" not in " ".join(changing.dig(q, "A").split()), 10, "its TTL counts down"
        )
        changing.cli("cache", "flush", *arguments, "--config", config)
        assert " 300 IN A" in " ".join(changing.dig(question, "A").split())


async def test_limits_and_toggles_change_while_it_runs(changing: Node) -> None:
    """Proves that a rate limit and the cache switch take effect by a reload, without a restart."""
    raw = yaml.safe_load(changing.config_path.read_text())
    config = str(changing.config_path)
    pid = changing.ask_ingress("status")["pid"]
    changed = {**raw, "cache": {"enabled": False}}
    changing.config_path.write_text(yaml.safe_dump(changed))
    changing.cli("config", "reload", "--config", config)
    for _ in range(3):
        assert " 300 IN A" in " ".join(changing.dig("uncached.cold.upstream.test", "A").split())
    changing.config_path.write_text(yaml.safe_dump(raw))
    changing.cli("config", "reload", "--config", config)
    assert changing.ask_ingress("status")["pid"] == pid
