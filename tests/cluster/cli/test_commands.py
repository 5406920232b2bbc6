"""scale, cache, zone, config: what they send to the agent, what they say, and how they refuse bad arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raydns.schemas.config import Config
from raydns.schemas.errors import CommandError, UnreachableError, ZoneFileError
from tests.cluster.cli.fake import FakeNode, say

ZONE = {"name": "a.example.", "serial": 7, "records": 3, "state": "ready", "shard": 0, "problem": "", "image": "ab"}


def test_scale_tells_the_agent_each_kind(node: FakeNode, directory: Path) -> None:
    """Each ``KIND=N`` is one command."""
    node.methods["agent"]["scale"] = lambda params: {**params, "installed": True}
    said = say("scale", "query=4", "cache=2", "--state-dir", directory)
    assert (said.code, said.out, said.err) == (0, "scale: query=4, cache=2\n", "")
    assert [call[2] for call in node.calls] == [{"kind": "query", "count": 4}, {"kind": "cache", "count": 2}]


def test_scale_that_is_not_everywhere_yet(node: FakeNode, directory: Path) -> None:
    """A machine that has not confirmed is told, in text and in JSON."""
    node.methods["agent"]["scale"] = lambda params: {**params, "installed": False}
    assert "not every machine has confirmed it yet" in say("scale", "query=4", "--state-dir", directory).out
    assert say("--json", "scale", "query=4", "--state-dir", directory).json == {
        "scale": {"query": 4},
        "installed": False,
    }


@pytest.mark.parametrize(
    ("words", "message", "hint"),
    [
        (["query"], "'query' is not KIND=N with a kind of query, cache, llm", "raydns scale query=4"),
        (["zone=2"], "'zone=2' is not KIND=N", "raydns scale query=4"),
        (["query=0"], "'0' is not a number from 1 to 1000", ""),
        (["query=-1"], "'-1' is not a number", ""),
        (["query=1e3"], "'1e3' is not a number", ""),
        (["query=²"], "'²' is not a number", ""),
        (["query=" + "9" * 400], "is not a number", ""),
        (["query=1", "query=2"], "query stands twice", "each kind once"),
        ([], "Missing argument 'KIND=N...'", "raydns scale --help"),
    ],
)
def test_scale_refuses(directory: Path, words: list[str], message: str, hint: str) -> None:
    """Arguments that make no sense never reach the cluster; the exit code is 2."""
    said = say("scale", *words, "--state-dir", directory)
    assert said.code == 2
    assert said.err.startswith("raydns: scale")
    assert message in said.err
    assert hint in said.err


def test_cache_flush(node: FakeNode, directory: Path) -> None:
    """The name is sent absolute and in lower case, with what is asked below it."""
    node.methods["agent"]["cache.flush"] = lambda params: {"name": params["name"], "installed": True}
    said = say("cache", "flush", "WWW.Example.com", "--subtree", "--state-dir", directory)
    assert (said.code, said.out) == (0, "flushed www.example.com. and everything below it\n")
    assert node.calls == [("agent", "cache.flush", {"name": "www.example.com.", "subtree": True})]


def test_cache_flush_refuses_what_is_no_name(directory: Path) -> None:
    """A bad name is told before anything is sent, with exit code 3."""
    said = say("cache", "flush", "a..b", "--json", "--state-dir", directory)
    assert said.code == 3
    assert said.error["code"] == "name"
    assert said.error["message"] == "empty label in 'a..b'"


GOOD = "$ORIGIN A.example.\n$TTL 60\n@ SOA ns h 7 1 1 1 1\n@ NS ns\nns A 192.0.2.1\n"


def test_zone_load(node: FakeNode, directory: Path, tmp_path: Path) -> None:
    """The file's text is sent with the name that it says or that was given; stray octets are escaped."""
    node.methods["agent"]["zone.load"] = lambda _: {"zone": ZONE, "installed": True}
    file = tmp_path / "z"
    file.write_bytes(GOOD.encode() + b"; caf\xe9\n")
    said = say("zone", "load", file, "--state-dir", directory)
    assert (said.code, said.out) == (0, "loaded a.example. serial 7, 3 records\n")
    assert node.calls[0][2] == {"apex": "a.example.", "text": GOOD + "; caf\\233\n", "file": str(file)}
    file.write_text(GOOD.partition("\n")[2])
    assert say("zone", "load", file, "--origin", "B.example", "--state-dir", directory).code == 0
    assert node.calls[1][2]["apex"] == "b.example."


def test_zone_load_refuses(node: FakeNode, directory: Path, tmp_path: Path) -> None:
    """A file that is missing, a directory, or without a name for its zone is told with exit code 3."""
    file = tmp_path / "z.zone"
    file.write_text("@ A 192.0.2.1\n")
    missing = say("zone", "load", tmp_path / "no", "--state-dir", directory)
    assert missing.code == 3
    assert missing.err.startswith(f"raydns: {tmp_path}/no: no such file\n  hint: ")
    assert "is a directory" in say("zone", "load", tmp_path, "--state-dir", directory).err
    nameless = say("zone", "load", file, "--state-dir", directory)
    assert nameless.code == 3
    assert "there is no origin" in nameless.err
    assert "--origin z\n" in nameless.err
    assert say("zone", "load", file, "--origin", "a..b", "--state-dir", directory).code == 3
    assert node.calls == []


def test_zone_load_tells_every_mistake(node: FakeNode, directory: Path, tmp_path: Path) -> None:
    """All mistakes of a file are told with their lines, and nothing is sent."""
    file = tmp_path / "z"
    file.write_text(GOOD + "x BLAH\ny A 1.2.3\nz MX ten ns\nw A\n")
    said = say("zone", "load", file, "--state-dir", directory)
    assert said.code == 3
    assert said.err.startswith(f"raydns: {file}: 4 errors\n  {file}:6:3: an unknown type; found 'BLAH'")
    for line in (7, 8, 9):
        assert f"  {file}:{line}:" in said.err
    problems = say("zone", "load", file, "--json", "--state-dir", directory).error["problems"]
    assert [problem["line"] for problem in problems] == [6, 7, 8, 9]
    assert node.calls == []


def test_zone_check(tmp_path: Path) -> None:
    """A file is checked without a node."""
    file = tmp_path / "z"
    file.write_text(GOOD)
    said = say("zone", "check", file)
    assert (said.code, said.out) == (0, f"{file}: a.example. serial 7, 3 records: the zone can be served\n")
    assert say("zone", "check", file, "--json").json["zone"] == {"name": "a.example.", "serial": 7, "records": 3}
    file.write_text(GOOD + "x BLAH\n")
    assert say("zone", "check", file).code == 3


def test_zone_load_that_the_cluster_refuses(node: FakeNode, directory: Path, tmp_path: Path) -> None:
    """What the zone shard refuses is told as it said it."""

    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise ZoneFileError("no SOA", where="z:1", hint="a zone begins with one")

    node.methods["agent"]["zone.load"] = refuse
    (tmp_path / "z").write_text(GOOD)
    said = say("zone", "load", tmp_path / "z", "--state-dir", directory)
    assert (said.code, said.err) == (3, "raydns: z:1: no SOA\n  hint: a zone begins with one\n")


def test_zone_list_and_show(node: FakeNode, directory: Path) -> None:
    """Zones as a table, files that could not be loaded beneath it, one zone by its name."""
    node.methods["agent"]["zone.list"] = lambda _: {"zones": [ZONE], "problems": {"b.example.": "no file"}}
    node.methods["agent"]["zone.show"] = lambda _: {"zone": ZONE}
    listed = say("zone", "list", "--state-dir", directory)
    assert listed.out.split()[:6] == ["name", "serial", "records", "state", "shard", "problem"]
    assert "a.example." in listed.out
    assert "b.example. is not loaded: no file" in listed.out
    assert "serial    7" in say("zone", "show", "A.example", "--state-dir", directory).out
    assert say("zone", "list", "--json", "--state-dir", directory).json["zones"] == [ZONE]
    node.methods["agent"]["zone.list"] = lambda _: {"zones": [], "problems": {}}
    assert say("zone", "list", "--state-dir", directory).out == "no zones\n"


def test_zone_show_of_an_unknown_zone(node: FakeNode, directory: Path) -> None:
    """The controller's own refusal arrives with its class, place and exit code."""

    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise CommandError("no such zone is served here", where="x.", hint="raydns zone list")

    node.methods["agent"]["zone.show"] = refuse
    said = say("zone", "show", "x", "--state-dir", directory)
    assert (said.code, said.err) == (2, "raydns: x.: no such zone is served here\n  hint: raydns zone list\n")


def test_config_check(tmp_path: Path) -> None:
    """A usable file is said to be one; warnings stand on standard error and fail only with --strict."""
    file = tmp_path / "c.yaml"
    file.write_text("zones: {files: [{name: a., file: nowhere}]}\n")
    said = say("config", "check", file)
    assert (said.code, said.out) == (0, f"{file}: the configuration can be used\n")
    assert "warning: zones.files[0].file:" in said.err
    assert say("config", "check", file, "--strict").code == 3
    assert say("config", "check", file, "--json").json["ok"] is True


def test_config_check_tells_every_problem(tmp_path: Path) -> None:
    """All problems at once, with lines and hints; as JSON one by one."""
    file = tmp_path / "c.yaml"
    file.write_text("server:\n  prot: 1\n  port: 70000\n")
    said = say("config", "check", file)
    assert said.code == 3
    assert said.err == (
        f"raydns: {file}: 2 problems\n"
        "  line 2: server.prot: unknown option\n"
        "    hint: did you mean server.port?\n"
        "  line 3: server.port: 70000 is more than 65535\n"
        "    hint: Port where listen names none; 0 takes a free one (tests)\n"
    )
    problems = say("--json", "config", "check", file).error["problems"]
    assert [(p["path"], p["line"]) for p in problems] == [("server.prot", 2), ("server.port", 3)]


def test_config_show(tmp_path: Path) -> None:
    """Every option with its value and source; --changed leaves out defaults."""
    file = tmp_path / "c.yaml"
    file.write_text("server:\n  port: 53\n")
    assert "cache.enabled = true\n" in say("config", "show", "-c", file).out
    changed = say("config", "show", "--changed", "-c", file, "--state-dir", "/tmp/rd-none").out.splitlines()
    assert f"server.port = 53    # {file}:2" in changed
    assert 'server.state_dir = "/tmp/rd-none"    # environment RAYDNS_SERVER__STATE_DIR' in changed
    assert len(changed) == 2
    options = say("--json", "config", "show", "-c", file).json["options"]
    assert options["server.port"] == {"value": 53, "from": f"{file}:2"}


def test_config_show_running(node: FakeNode, directory: Path) -> None:
    """--running shows what the cluster has in force."""
    config = {"server": {"port": 54}}
    node.methods["agent"]["config.show"] = lambda _: {"config": config, "version": [1, 2]}
    assert say("config", "show", "--running", "--changed", "--state-dir", directory).out == "server.port = 54\n"


def test_config_reload(node: FakeNode, directory: Path, tmp_path: Path) -> None:
    """The whole configuration is sent; changes are told, and which of them wait for a restart."""
    running = Config().model_dump(mode="json")
    running["server"]["state_dir"] = str(directory)
    node.methods["agent"]["config.show"] = lambda _: {"config": running, "version": [1, 2]}
    node.methods["agent"]["config.reload"] = lambda _: {"installed": True, "zone_problems": {"b.": "line 3"}}
    file = tmp_path / "c.yaml"
    file.write_text(f"server: {{port: 53, state_dir: {directory}}}\ncache: {{enabled: false}}\n")
    said = say("config", "reload", "-c", file)
    assert said.code == 0
    assert said.out.splitlines() == [
        "server.port: 1053 -> 53    (takes a restart: raydns down, raydns up)",
        "cache.enabled: true -> false",
        "reloaded, 2 options changed",
    ]
    assert "zone b. keeps its old state: line 3" in said.err
    assert node.calls[-1][2]["config"]["server"]["port"] == 53


def test_config_reload_of_a_bad_file_sends_nothing(node: FakeNode, directory: Path, tmp_path: Path) -> None:
    """All or nothing: the cluster keeps what it has."""
    file = tmp_path / "c.yaml"
    file.write_text("server: {port: 70000}\n")
    assert say("config", "reload", "-c", file, "--state-dir", directory).code == 3
    assert node.calls == []


def test_config_schema() -> None:
    """The schema is JSON, for people and for programs."""
    assert say("config", "schema").json["title"] == "raydns configuration"
    assert say("--json", "config", "schema").json == say("config", "schema").json


def test_agent_that_is_not_there_yet(node: FakeNode, directory: Path) -> None:
    """While Ray starts, a command says so instead of sending somebody to start what runs already."""
    node.state_dir.agent_socket.unlink()
    said = say("zone", "list", "--state-dir", directory)
    assert said.code == 4
    assert "the agent is not there yet" in said.err
    assert "raydns status" in said.err


def test_controller_that_does_not_answer(node: FakeNode, directory: Path) -> None:
    """The agent's own words come through, with exit code 4."""

    def away(_: dict[str, Any]) -> dict[str, Any]:
        raise UnreachableError("the controller does not answer", where="controller", hint="it comes back by itself")

    node.methods["agent"]["scale"] = away
    said = say("scale", "query=2", "--state-dir", directory, "--json")
    assert said.code == 4
    assert said.error == {
        "code": "unreachable",
        "message": "the controller does not answer",
        "where": "controller",
        "hint": "it comes back by itself",
    }


def test_an_upstream_that_is_this_server_is_refused_before_anything_starts(tmp_path: Path) -> None:
    """What only the forwarder can judge is told by `config check` as well: an upstream that leads back to us."""
    config = tmp_path / "raydns.yaml"
    rule = "{suffix: ., upstreams: [{address: '127.0.0.1:1053'}]}"
    config.write_text(f"server: {{listen: [127.0.0.1], port: 1053}}\nforward: {{rules: [{rule}]}}\n")
    said = say("config", "check", "--config", str(config))
    assert said.code == 3
    assert "forward.rules[0].upstreams[0]" in said.err
    assert "hint:" in said.err
    assert "Traceback" not in said.err
