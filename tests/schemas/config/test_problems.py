"""Messages: every problem at once, each with path, value, line and what to do; never a secret."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from raydns.schemas.config.problems import HIDDEN, ConfigProblems, Problem, is_secret, path_text, value_text
from raydns.schemas.errors import ConfigError, catalogue
from tests.schemas.config.writing import only, refused


def test_every_problem_at_once(tmp_path: Path) -> None:
    """One load tells wrong values, unknown options, environment, and contradictions between options together."""
    text = "server:\n  port: 70000\n  prot: 1\nforward:\n  port_min: 60000\n  port_max: 50000\ncache:\n  shards: many\n"
    error = refused(tmp_path, text, {"RAYDNS_SERVER__PRT": "1"})
    assert [(p.path, p.line) for p in error.problems] == [
        ("server.port", 2),
        ("server.prot", 3),
        ("forward.port_min", 5),
        ("cache.shards", 8),
        ("server.prt", None),
    ]
    assert isinstance(error, ConfigError)
    assert error.message.splitlines()[0] == "5 problems"
    assert f"{tmp_path}/c.yaml:2: server.port: 70000 is more than 65535" in error.message
    assert "environment RAYDNS_SERVER__PRT: server.prt: '1' unknown option" in error.message
    assert "hint: did you mean RAYDNS_SERVER__PORT?" in error.message


def test_problems_of_one_file_name_it_once(tmp_path: Path) -> None:
    """With a single source the place is said at the head, the lines below it."""
    error = refused(tmp_path, "server:\n  port: 70000\n  nsid: 3\n")
    assert error.where == f"{tmp_path}/c.yaml"
    assert error.message.splitlines()[1] == "  line 2: server.port: 70000 is more than 65535"


def test_one_problem_is_one_line(tmp_path: Path) -> None:
    """A single problem fits the form of all our errors."""
    error = refused(tmp_path, "server:\n  port: yes please\n")
    assert error.where == f"{tmp_path}/c.yaml:2"
    assert error.message == "server.port: 'yes please' is not a whole number"
    assert error.hint.startswith("Port where listen names none")


@pytest.mark.parametrize(
    ("text", "path", "value", "message", "hint"),
    [
        ("server: {listen: 127.0.0.1}", "server.listen", "'127.0.0.1'", "is not a list", "write a list: [127.0.0.1]"),
        ("server: {listen: [localhost]}", "server.listen[0]", "'localhost'", "is not an IP address", ""),
        ("server: {listen: []}", "server.listen", "", "names no address", "write ['0.0.0.0', '::'] for all"),
        ("server: {listen: ['::1', '0:0::1']}", "server.listen[1]", "'::1'", "stands in server.listen[0] already", ""),
        ("server: {port: }", "server.port", "None", "has no value", ""),
        ("server: {port: 1.5}", "server.port", "1.5", "is not a whole number", ""),
        ("server: {port: -1}", "server.port", "-1", "is less than 0", ""),
        ("server: {query_timeout_s: 0}", "server.query_timeout_s", "0", "is not more than 0", ""),
        ("server: {query_timeout_s: .nan}", "server.query_timeout_s", "nan", "is not", ""),
        ("server: {nsid: 12}", "server.nsid", "12", "is not text", "put it in quotes: '12'"),
        ("server: {udp_size: 70000}", "server.udp_size", "70000", "is more than 4096", ""),
        ("server: {state_dir: ''}", "server.state_dir", "''", "is empty", ""),
        ("server: 5", "server", "5", "is not a group of options", "its options are listen, port"),
        ("cache: [a]", "cache", "['a']", "is not a group of options", ""),
        ("cache: {enabled: maybe}", "cache.enabled", "'maybe'", "is not true or false", ""),
        ("cache: {ttl_min_s: 60, ttl_max_s: 5}", "cache.ttl_min_s", "60", "is more than cache.ttl_max_s (5)", ""),
        ("llm: {catch_all: stubb}", "llm.catch_all", "'stubb'", "is not one of 'stub' or 'off'", "did you mean stub?"),
        ("llm: {models: []}", "llm.models", "[]", "at least 1", ""),
        ("llm: {zones: [a..b]}", "llm.zones[0]", "'a..b'", "empty label", ""),
        ("cluster: {head: false}", "cluster.address", "", "is missing on a machine that is not the head", "HOST:PORT"),
        ("cluster: {labels: [a]}", "cluster.labels", "['a']", "is not a group of names and values", ""),
        ("web: {listen: 127.0.0.1}", "web.listen", "'127.0.0.1'", "has no port", "127.0.0.1:8053"),
        ("access: {classes: [{name: A, prefixes: []}]}", "access.classes[0].name", "'A'", "does not match", ""),
        ("access: {classes: [{name: a}]}", "access.classes[0].prefixes", "", "is missing", ""),
        (
            "access: {classes: [{name: a, prefixes: [192.0.2.1/24]}]}",
            "access.classes[0].prefixes[0]",
            "'192.0.2.1/24'",
            "is not a prefix",
            "",
        ),
        (
            "access: {classes: [{name: a, prefixes: ['::/0']}, {name: a, prefixes: [10.0.0.0/8]}]}",
            "access.classes[1].name",
            "'a'",
            "stands in access.classes[0] already",
            "",
        ),
        (
            "access: {classes: [{name: a, prefixes: [10.0.0.0/8]}, {name: b, prefixes: [10.0.0.0/8]}]}",
            "access.classes[1].prefixes[0]",
            "'10.0.0.0/8'",
            "belongs to class a already",
            "",
        ),
        (
            "zones: {files: [{name: a.example, file: x}, {name: A.example., file: y}]}",
            "zones.files[1].name",
            "'a.example.'",
            "stands in zones.files[0] already",
            "a zone has one master file",
        ),
        ("zones: {files: [{name: a.example}]}", "zones.files[0].file", "", "is missing", ""),
        ("forward: {rules: [{suffix: .}]}", "forward.rules[0].upstreams", "", "is missing", ""),
        (
            "forward: {rules: [{suffix: ., upstreams: [{address: dns.example}]}]}",
            "forward.rules[0].upstreams[0].address",
            "'dns.example'",
            "is a name without a port",
            "dns.example:53",
        ),
        (
            "forward: {rules: [{suffix: ., upstreams: [{address: 'dns.example:x'}]}]}",
            "forward.rules[0].upstreams[0].address",
            "'dns.example:x'",
            "has no port from 1 to 65535",
            "",
        ),
        (
            "forward: {rules: [{suffix: ., upstreams: [{address: 300.1.1.1}]}]}",
            "forward.rules[0].upstreams[0].address",
            "'300.1.1.1'",
            "is not an IP address",
            "",
        ),
        ("forward: {breaker: {open_s: 90}}", "forward.breaker.open_s", "90", "is more than forward.breaker", ""),
        ("query: {pool_size: 9, pool_max: 8}", "query", "", "pool_size 9 is not between", ""),
    ],
)
def test_message(tmp_path: Path, text: str, path: str, value: str, message: str, hint: str) -> None:
    """Each kind of mistake is told with its option, the value as written, and what would be right."""
    problem = only(refused(tmp_path, text))
    assert (problem.path, problem.value) == (path, value)
    assert message in problem.message
    assert hint in problem.hint
    assert problem.line == 1


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("server: {prot: 1}", "did you mean server.port?"),
        ("server: {query-timeout-s: 1}", "did you mean server.query_timeout_s?"),
        ("sever: {port: 1}", "did you mean server?"),
        ("cache: {listen: []}", "listen is an option of server, web"),
        ("port: 53", "port is an option of server"),
        ("server: {sample_ratio: 1}", "sample_ratio is an option of telemetry.trace"),
        ("server: {otlp_endpont: x}", "did you mean telemetry.trace.otlp_endpoint?"),
        ("query: {budget: {zzz: 1}}", "known here: upstream_queries, octets, cname_steps"),
        ("zones: {files: [{name: a., file: f, flie: x}]}", "did you mean zones.files[0].file?"),
    ],
)
def test_unknown_option(tmp_path: Path, text: str, hint: str) -> None:
    """An unknown option is refused with the nearest known name and with where its own name is legal."""
    problem = only(refused(tmp_path, text))
    assert problem.message == "unknown option"
    assert hint in problem.hint


@pytest.mark.parametrize(
    "text",
    [
        "llm: {api_key: sk-hush-hush-hush}",
        "llm: {api_key_env: sk-hush-hush-hush}",
        "llm: {api_key_env: {token: sk-hush-hush-hush}}",
        "server: {port: {password: sk-hush-hush-hush}}",
        "server: {port: sk-hush-hush-hush}",
        "cluster: {secret: sk-hush-hush-hush, token: [sk-hush-hush-hush]}",
        "llm: sk-hush-hush-hush",
        "llm: {api_key_file: sk-hush-hush-hush}",
        "llm: {api_key: sk-hush-hush-hush",
    ],
)
def test_secrets_are_never_told(tmp_path: Path, text: str) -> None:
    """A key in a wrong place is refused without being repeated, in text and in JSON."""
    error = refused(tmp_path, text)
    assert "hush" not in str(error)
    assert "hush" not in str([problem.as_dict() for problem in error.problems])


def test_secret_in_a_variable_is_never_told(tmp_path: Path) -> None:
    """The environment is no better a place for a key under a wrong name."""
    error = refused(tmp_path, "", {"RAYDNS_LLM__API_KEY": "hush-hush"})
    assert "hush" not in str(error)


def test_key_file_that_others_can_read(tmp_path: Path) -> None:
    """A key file has to be its owner's alone, and the hint is the command."""
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o644)
    problem = only(refused(tmp_path, "llm: {api_key_file: key}"))
    assert problem.message == "can be read by others (mode 0644)"
    assert problem.hint.startswith("chmod 600")
    key.unlink()
    assert "cannot be read: No such file" in only(refused(tmp_path, "llm: {api_key_file: key}")).message


def test_error_survives_a_pickle_and_a_control_socket() -> None:
    """Problems reach the other side of an actor call whole, and of a control socket as text."""
    problems = [Problem("a.b", "1", "is wrong", "write 2", 3, "f.yaml"), Problem("c", "", "is missing")]
    error = ConfigProblems.of(problems)
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(again, ConfigProblems)
    assert again.problems == error.problems
    told = error.as_dict()
    rebuilt = catalogue()[told["code"]](told["message"], where=told["where"], hint=told["hint"])
    assert "a.b: 1 is wrong" in str(rebuilt)
    assert "c: is missing" in str(rebuilt)


def test_many_problems_do_not_fill_the_screen() -> None:
    """Above a hundred they are counted."""
    error = ConfigProblems.of([Problem(f"o{i}", "", "is wrong", source="f") for i in range(250)])
    assert error.message.splitlines()[-1] == "  and 150 more"
    assert len(error.problems) == 250


def test_texts() -> None:
    """Paths read as one writes them, long values are cut, names of secrets are known."""
    assert path_text(("forward", "rules", 0, "suffix")) == "forward.rules[0].suffix"
    assert len(value_text(("a",), "x" * 500)) == 60
    assert value_text(("api_key",), "abc") == HIDDEN
    assert value_text(("api_key",), 7) == "7"
    assert [is_secret(name) for name in ("api_key", "ray_token", "api_key_file", "max_tokens", "keyboard")] == [
        True,
        True,
        False,
        False,
        False,
    ]
