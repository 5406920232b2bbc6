"""``raydns status``: one picture out of three sockets, also while some of them are away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from raydns.cluster.cli.shared import Settings
from raydns.cluster.cli.status import gather, picture
from tests.cluster.cli.fake import CLUSTER, FakeNode, say


def test_picture(node: FakeNode, directory: Path) -> None:
    """Machine, processes, rates, actors, troubles and events stand in it, and brackets stay brackets."""
    said = say("status", "--state-dir", directory)
    assert said.code == 0
    for part in (
        "machine   m1    answers on 127.0.0.1:1",
        "ingress   pid 2, ready    100 queries/s, 0 misses/s, 4 waiting, engine python",
        "state 3.17",
        "wants query 1, cache 1, zone 0, llm 0; 1 zones",
        "query:0.g1",
        "[slow]",
        "zone broken.example.: zones/broken:3: no TTL",
        "4 s ago  actor replaced cache:0 three probes failed",
    ):
        assert part in said.out


def test_json(node: FakeNode, directory: Path) -> None:
    """JSON holds what the three processes said."""
    data = say("status", "--json", "--state-dir", directory).json
    assert data["node"]["addresses"] == ["127.0.0.1:1"]
    assert data["agent"]["cluster"] == CLUSTER


def test_agent_away(node: FakeNode, directory: Path) -> None:
    """With Ray down the rest is shown, and the exit code is 0: the machine answers."""
    node.state_dir.agent_socket.unlink()
    said = say("status", "--state-dir", directory)
    assert said.code == 0
    assert "nobody is there for status: the socket does not exist" in said.out
    assert "ingress   pid 2, ready" in said.out


def test_controller_away(node: FakeNode, directory: Path) -> None:
    """A controller that is away is told with what that means."""
    node.methods["agent"]["status"] = lambda _: {"pid": 3, "cluster": {"problem": "no such actor"}}
    said = say("status", "--state-dir", directory)
    assert "controller: no such actor; nothing changes until it is back, answers go on" in said.out


def test_nobody_there(directory: Path) -> None:
    """Where no node has run, the hint says how to start or to find one; the exit code is 4."""
    said = say("status", "--state-dir", directory)
    assert said.code == 4
    assert said.err.startswith(f"raydns: {directory}: no node has run here\n  hint: raydns up; or name")


def test_answers_of_another_release_are_shown(node: FakeNode, directory: Path) -> None:
    """Missing and unknown fields never break the picture."""
    node.methods["agent"]["status"] = lambda _: {"cluster": {"actors": [{}], "machines": [{"x": 1}], "events": [{}]}}
    node.methods["node"]["status"] = lambda _: {}
    node.methods["ingress"]["status"] = lambda _: {"ready": False}
    assert say("status", "--state-dir", directory).code == 0


def test_watch_goes_on_until_interrupted(node: FakeNode, directory: Path) -> None:
    """--watch --json prints a line an interval; Ctrl-C ends it with 130 and no traceback."""
    import signal

    command = [sys.executable, "-m", "raydns.cluster.cli.main", "status", "--watch", "--json", "--interval", "0.2"]
    with subprocess.Popen(
        [*command, "--state-dir", str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert all(line.startswith('{"node": ') for line in lines)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_gather_and_picture_are_apart(node: FakeNode, directory: Path) -> None:
    """The picture is made from data alone: the same data gives the same picture."""
    data = gather(Settings(state_dir_option=str(directory), environ={}))
    assert type(picture(data)) is type(picture(data))
