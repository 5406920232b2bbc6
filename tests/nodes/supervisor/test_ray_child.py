"""Ray as the supervisor runs it, with a fake that behaves as badly as the real one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import msgspec
import pytest

from raydns.nodes.supervisor import main, procfs, records
from raydns.nodes.supervisor.procfs import Identity
from tests.nodes.supervisor.support import Background, background, fake_plan, until


@pytest.fixture
def node() -> Iterator[Background]:
    """A node's place."""
    with background() as made:
        yield made
        assert members(made) == set(), "the end of the node is the end of its Ray"


def members(node: Background) -> set[Identity]:
    """Every process of its Ray."""
    record = records.load(node.state_dir.run / "ray.json", records.RayRecord)
    return procfs.family(record.mark) if record is not None else set()


def running(node: Background) -> int:
    """The process id of Ray, once it runs with all its daemons."""
    status = until(lambda: (s := node.status()).get("ray", {}).get("phase") == "running" and s, "Ray runs")
    until(lambda: len(members(node)) >= 4, "its daemons are there")
    return int(status["ray"]["pid"])


def test_bootstrap_is_repeated_until_it_succeeds_and_stop_leaves_nothing(node: Background) -> None:
    """DNS does not wait for Ray; the bootstrap fails twice and then runs once; stop ends even what hides."""
    node.start(ray=fake_plan(node.place))
    running(node)
    assert (node.place / "bootstraps").read_text() == "run\n" * 3
    found = members(node)
    assert len(found) == 4
    assert main.stop(node.state_dir)
    assert not any(procfs.is_alive(who) for who in found)


def test_a_killed_ray_is_cleared_and_comes_back(node: Background) -> None:
    """After kill -9 of `ray start` its orphans are ended before the next one starts; DNS never stopped."""
    status = node.start(ray=fake_plan(node.place))
    first = running(node)
    orphans = members(node) - {procfs.identity(first)}
    os.kill(first, signal.SIGKILL)
    second = until(lambda: (pid := running(node)) != first and pid, "another Ray runs")
    assert not any(procfs.is_alive(who) for who in orphans)
    assert (node.place / "ray-starts").read_text().split() == [str(first), str(second)]
    assert (node.place / "bootstraps").read_text() == "run\n" * 4
    assert node.ask() == status["ingress"]["pid"]
    assert main.stop(node.state_dir)


def test_a_new_supervisor_adopts_its_ray(node: Background) -> None:
    """Ray survives kill -9 of the supervisor; the next one keeps it, bootstraps it again, and watches it."""
    plan = fake_plan(node.place)
    status = node.start(ray=plan)
    first = running(node)
    os.kill(status["pid"], signal.SIGKILL)
    node.start(ray=plan)
    assert running(node) == first
    assert (node.place / "bootstraps").read_text() == "run\n" * 4
    os.kill(first, signal.SIGKILL)
    until(lambda: running(node) != first, "the adopted one is replaced")
    assert main.stop(node.state_dir)


def test_another_plan_needs_another_ray(node: Background) -> None:
    """A Ray started with other settings is ended, not adopted; without a plan it is ended too."""
    status = node.start(ray=fake_plan(node.place))
    first = running(node)
    os.kill(status["pid"], signal.SIGKILL)
    status = node.start(ray=fake_plan(node.place, SETTING="other"))
    second = running(node)
    assert second != first
    assert procfs.identity(first) is None
    os.kill(status["pid"], signal.SIGKILL)
    status = node.start()
    until(lambda: members(node) == set(), "nothing of Ray is left")
    assert status["ray"]["phase"] == "off"


def test_a_recycled_process_id_is_not_ray(node: Background) -> None:
    """A record whose process id now belongs to somebody else is no Ray, and that somebody is left alone."""
    node.state_dir.create()
    record = records.RayRecord("RAYDNS_RAY_MARK=0", "x", records.ProcessRecord(os.getpid(), 1))
    (node.state_dir.run / "ray.json").write_bytes(msgspec.json.encode(record))
    (node.state_dir.run / "ingress.json").write_bytes(b"{damaged")
    node.start()
    assert main.stop(node.state_dir)


def test_a_ray_that_cannot_start_is_tried_again(node: Background) -> None:
    """A command that does not exist costs nothing but its back-off: DNS is answered, stop is quick."""
    plan = fake_plan(node.place)
    status = node.start(ray=type(plan)(start=["/does/not/exist"]))
    until(lambda: node.status()["ray"]["restarts"] >= 2, "it was tried again")
    assert node.ask() == status["ingress"]["pid"]
    assert main.stop(node.state_dir)
