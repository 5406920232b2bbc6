"""run, up, down, node: what they ask of the supervisor, what they wait for, what they say."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from raydns.cluster.cli import life
from raydns.nodes.supervisor import main as supervisor
from raydns.schemas.config.load import load
from raydns.schemas.errors import SocketError, StateError
from tests.cluster.cli.fake import CLUSTER, FakeNode, say

STATUS: dict[str, Any] = {"ready": True, "addresses": ["0.0.0.0:1053", "[::]:1053"], "web": "127.0.0.1:8053"}
READY = {**CLUSTER, "scale": {"query": 1, "cache": 0}}


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the supervisor was asked to start; nothing is started."""
    asked: list[dict[str, Any]] = []

    def start(config: Any, path: Any = None, **options: Any) -> dict[str, Any]:
        asked.append({"config": config, "path": path, **options})
        return {**STATUS, "already": False}

    def run(config: Any, path: Any = None, **options: Any) -> int:
        asked.append({"config": config, "path": path, **options})
        if options["on_ready"] is not None:
            options["on_ready"](STATUS)
        return 0

    monkeypatch.setattr(supervisor, "start", start)
    monkeypatch.setattr(supervisor, "run", run)
    return asked


EXAMPLE = Path(__file__).parents[3] / "examples/raydns.yaml"


def test_run_tells_what_to_try(
    started: list[dict[str, Any]], node: FakeNode, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` says at once where it listens and, when it will be answered, what to try: three dig lines, the page."""
    monkeypatch.setattr(life, "PAUSE_S", 0.01)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: thread.run())  # as if there were all the time
    answers = [{"cluster": {"problem": "away"}}, {"cluster": {**READY, "zones": 0, "zone_problems": {}}}]
    node.methods["agent"]["status"] = lambda _: answers.pop(0) if answers else {"cluster": READY}
    said = say("run", "--config", EXAMPLE, "--state-dir", directory)
    assert said.code == 0
    assert said.out.splitlines() == [
        "raydns listens on 0.0.0.0:1053, [::]:1053; the actors follow in some seconds. "
        "Ctrl-C drains and ends everything.",
        "",
        "raydns answers on 0.0.0.0:1053, [::]:1053. Try:",
        "",
        "  dig @127.0.0.1 -p 1053 www.raydns.example. A",
        "  dig @127.0.0.1 -p 1053 raydns.example. MX",
        "  dig @127.0.0.1 -p 1053 what.is.the.capital.of.france TXT +timeout=10",
        "",
        "Status page: http://127.0.0.1:8053/    metrics: http://127.0.0.1:8053/metrics",
        f"From another terminal: raydns status --watch --state-dir {directory}",
        "",
    ]
    assert answers == []
    assert started[0]["config"].server.state_dir == str(directory)
    assert started[0]["ray"].bootstrap is not None


def test_run_tells_what_is_missing(
    started: list[dict[str, Any]], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where actors do not come, `run` says so after a while, and what to try all the same."""
    monkeypatch.setattr(life, "ANNOUNCE_WAIT_S", 0.0)
    monkeypatch.setattr(threading.Thread, "start", lambda thread: thread.run())
    said = say("run", "--config", EXAMPLE, "--state-dir", directory)
    assert "not everything is there after 0 s: the agent does not answer" in said.err
    assert "dig @127.0.0.1 -p 1053" in said.out
    assert say("run", "--json", "--config", EXAMPLE, "--state-dir", directory).json == STATUS


def test_missing_zones() -> None:
    """Zones are waited for, except those whose files are faulty."""
    assert life.missing_zones({"zones": 1}, 2) == "1 of 2 zones are loaded"
    assert life.missing_zones({"zones": 1, "zone_problems": {"b.": "line 3"}}, 2) == ""
    assert life.missing_zones({}, 0) == ""


def test_up_waits_for_the_actors(
    started: list[dict[str, Any]], node: FakeNode, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`up` returns when every actor that is wanted is ready."""
    monkeypatch.setattr(life, "PAUSE_S", 0.01)
    answers = [{"cluster": {"problem": "away"}}, {"cluster": CLUSTER}, {"cluster": READY}]
    node.methods["agent"]["status"] = lambda _: answers.pop(0)
    said = say("up", "--state-dir", directory)
    assert (said.code, said.out) == (0, "answers on 0.0.0.0:1053, [::]:1053\n")
    assert answers == []


def test_up_that_takes_too_long(
    started: list[dict[str, Any]], node: FakeNode, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing is told, with exit code 6; it goes on trying."""
    monkeypatch.setattr(life, "PAUSE_S", 0.01)
    said = say("up", "--timeout", "1", "--state-dir", directory)
    assert said.code == 6
    assert "not everything is there after 1 s: ready are only 0 of 1 cache actors" in said.err
    assert "raydns status" in said.err


def test_up_dns_only_and_node_start(started: list[dict[str, Any]], directory: Path) -> None:
    """Both return when DNS is answered and wait for no actor."""
    assert say("up", "--dns-only", "--state-dir", directory).code == 0
    assert say("node", "start", "--state-dir", directory).out == "started\n"
    assert say("node", "start", "--foreground", "--state-dir", directory).code == 0
    assert len(started) == 3


@pytest.mark.parametrize(
    ("error", "code"),
    [(SocketError("the address is in use", where="UDP 0.0.0.0:53", hint="end it"), 5), (StateError("is in use"), 5)],
)
def test_start_that_fails(monkeypatch: pytest.MonkeyPatch, directory: Path, error: Exception, code: int) -> None:
    """The supervisor's own words come through."""

    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(supervisor, "start", fail)
    monkeypatch.setattr(supervisor, "run", fail)
    for words in (["up"], ["node", "start"], ["run"]):
        said = say(*words, "--state-dir", directory)
        assert said.code == code
        assert str(error.args[0]) in said.err


def test_start_with_a_bad_configuration_starts_nothing(started: list[dict[str, Any]], tmp_path: Path) -> None:
    """Every problem is told here, not in a log."""
    (tmp_path / "c.yaml").write_text("server: {port: 70000}\n")
    for words in (["up"], ["run"], ["node", "start"]):
        assert say(*words, "--config", tmp_path / "c.yaml").code == 3
    assert started == []


def test_state_directory_of_somebody_else(started: list[dict[str, Any]], tmp_path: Path) -> None:
    """A directory that holds other files is refused with exit code 5."""
    (tmp_path / "letter.txt").write_text("dear")
    said = say("up", "--state-dir", tmp_path)
    assert said.code == 5
    assert "was not made by raydns" in said.err


def test_down_where_nothing_runs(directory: Path) -> None:
    """`down` and `node stop` may be said at any time."""
    assert say("down", "--state-dir", directory).out == "nothing runs here\n"
    assert say("node", "stop", "--json", "--state-dir", directory).json == {
        "stopped": False,
        "state_dir": str(directory),
    }


def test_down_hands_on_what_was_asked(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--now and --timeout reach the supervisor."""
    asked: list[dict[str, Any]] = []

    def stop(_: Any, **options: Any) -> bool:
        asked.append(options)
        return True

    monkeypatch.setattr(supervisor, "stop", stop)
    assert say("down", "--now", "--timeout", "5", "--state-dir", directory).out == "stopped\n"
    assert asked == [{"immediate": True, "timeout_s": 5.0}]


def test_node_takeover_and_status(node: FakeNode, directory: Path) -> None:
    """A take-over is asked of the supervisor; its status is a tree."""
    node.methods["node"]["takeover"] = lambda _: {"number": 2, "pid": 99}
    node.methods["node"]["status"] = lambda _: {"pid": 1, "addresses": ["a", "b"], "ray": {"phase": "up"}}
    assert say("node", "takeover", "--state-dir", directory).out == "ingress 2 runs as 99\n"
    assert say("node", "status", "--state-dir", directory).out.splitlines() == [
        "pid         1",
        "addresses   a, b",
        "ray",
        "  phase       up",
    ]


def test_questions_fit_the_configuration() -> None:
    """The dig lines are ones that this configuration answers."""
    assert life.questions(load(None, {}).config)[0].startswith("what.is.the.capital.of.france TXT")
    bare = load(None, {"RAYDNS_LLM__ENABLED": "false"}).config
    assert len(life.questions(bare)) == 3
    assert not any("what.is" in question for question in life.questions(bare))
