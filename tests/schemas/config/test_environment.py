"""Variables over the file: nested names, lists, the plain names, and variables that are not ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydns.schemas.config.load import load
from raydns.schemas.config.problems import ConfigProblems
from tests.schemas.config.writing import loaded, only, refused


def test_variable_wins_over_the_file(tmp_path: Path) -> None:
    """Environment over file, and the provenance says so."""
    result = loaded(tmp_path, "server: {port: 1, nsid: here}\n", {"RAYDNS_SERVER__PORT": "53"})
    assert result.config.server.port == 53
    assert result.config.server.nsid == "here"
    assert result.provenance["server.port"] == "environment RAYDNS_SERVER__PORT"


@pytest.mark.parametrize(
    ("name", "text", "option", "value"),
    [
        ("RAYDNS_SERVER__LISTEN", "127.0.0.1", "server.listen", ("127.0.0.1",)),
        ("RAYDNS_SERVER__LISTEN", "127.0.0.1, ::1", "server.listen", ("127.0.0.1", "::1")),
        ("RAYDNS_SERVER__LISTEN", "['[::1]:54', 127.0.0.1]", "server.listen", ("[::1]:54", "127.0.0.1")),
        ("RAYDNS_SERVER__LISTEN", "[::1]:54", "server.listen", ("[::1]:54",)),
        ("RAYDNS_SERVER__NAME", "0123", "server.name", "0123"),
        ("RAYDNS_SERVER__NAME", "true", "server.name", "true"),
        ("RAYDNS_SERVER__TCP__IDLE_S", " 2.5 ", "server.tcp.idle_s", 2.5),
        ("RAYDNS_LLM__ENABLED", "no", "llm.enabled", False),
        ("RAYDNS_LLM__CATCH_ALL", "off", "llm.catch_all", "off"),
        ("RAYDNS_LLM__EMBEDDED__LABEL", "[demo] ", "llm.embedded.label", "[demo] "),
        ("RAYDNS_TELEMETRY__TRACE__SAMPLE_RATIO", "1", "telemetry.trace.sample_ratio", 1.0),
        ("RAYDNS_CLUSTER__LABELS", "{region: eu}", "cluster.labels", {"region": "eu"}),
        ("RAYDNS_CLUSTER__LABELS__REGION", "eu", "cluster.labels", {"region": "eu"}),
        ("RAYDNS_VERSION", "1", "version", 1),
    ],
)
def test_values(name: str, text: str, option: str, value: object) -> None:
    """Numbers, booleans, text, lists and tables are read for the type of their option."""
    found: object = load(None, {name: text}).config
    for part in option.split("."):
        found = getattr(found, part)
    assert found == value


def test_list_of_groups() -> None:
    """A list of groups is YAML in the variable."""
    text = "[{suffix: ., upstreams: [{address: 192.0.2.1, transport: tcp}]}]"
    rules = load(None, {"RAYDNS_FORWARD__RULES": text}).config.forward.rules
    assert (rules[0].suffix, rules[0].upstreams[0].transport) == (".", "tcp")
    problem = only(_refused({"RAYDNS_FORWARD__RULES": "192.0.2.1"}))
    assert problem.message == "is not a list"
    assert "commas" in problem.hint


def _refused(environ: dict[str, str]) -> ConfigProblems:
    with pytest.raises(ConfigProblems) as caught:
        load(None, environ)
    return caught.value


def test_wrong_value_names_the_variable() -> None:
    """The place of a problem is the variable, not the file that it overrides."""
    assert str(_refused({"RAYDNS_SERVER__PORT": "http"})).startswith(
        "environment RAYDNS_SERVER__PORT: server.port: 'http' is not a whole number"
    )


def test_bad_list_names_the_variable() -> None:
    """A list that is no YAML is told with the variable."""
    problem = only(_refused({"RAYDNS_SERVER__LISTEN": "[a"}))
    assert problem.source == "environment RAYDNS_SERVER__LISTEN"
    assert "not YAML" in problem.message


def test_unknown_variable() -> None:
    """A nested name that is no option is refused with the variable that was meant."""
    assert only(_refused({"RAYDNS_SERVER__PROT": "1"})).hint == "did you mean RAYDNS_SERVER__PORT?"
    assert only(_refused({"RAYDNS_PORT__X__Y": "1"})).message == "unknown option"
    assert only(_refused({"RAYDNS___": "1"})).message == "unknown option"


def test_variables_of_kubernetes_are_not_ours() -> None:
    """A service called raydns puts these into every container; they are no options and no errors."""
    environ = {"RAYDNS_PORT": "tcp://10.0.0.1:53", "RAYDNS_SERVICE_HOST": "10.0.0.1", "RAYDNS_PORT_53_UDP_PORT": "53"}
    assert load(None, environ).warnings == []


def test_misspelt_variable_without_section_is_a_warning() -> None:
    """Ours end up near a known name."""
    assert load(None, {"RAYDNS_CONFG": "x"}).warnings == ["RAYDNS_CONFG is not read; did you mean RAYDNS_CONFIG?"]


def test_plain_names() -> None:
    """The five plain names of the issue set what they say, and RAYDNS_ names win over them."""
    environ = {
        "DNS_SERVER_MAX_CONCURRENT_QUERIES": "123",
        "DNS_SERVER_ACTOR_POOL_SIZE": "12",
        "DNS_SERVER_QUERY_TIMEOUT_SECS": "45",
        "DNS_SERVER_ENABLE_CACHING": "false",
        "OPENROUTER_API_KEY": "sk-or-secret-secret",
    }
    result = load(None, environ)
    config = result.config
    assert config.server.max_concurrent_queries == 123
    assert (config.query.pool_size, config.query.pool_max, config.query.pool_min) == (12, 12, 1)
    assert (config.server.query_timeout_s, config.forward.timeout_s) == (45.0, 30.0)
    assert config.cache.enabled is False
    assert result.provenance["llm.api_key"] == "environment OPENROUTER_API_KEY"
    assert "secret" not in config.model_dump_json()
    over = load(None, {**environ, "RAYDNS_QUERY__POOL_SIZE": "3", "RAYDNS_FORWARD__TIMEOUT_S": "9"}).config
    assert (over.query.pool_size, over.forward.timeout_s) == (3, 9.0)


@pytest.mark.parametrize(("text", "client", "upstream"), [("0.2", 0.2, 1.0), ("5", 5.0, 5.0), ("60", 60.0, 30.0)])
def test_timeout_is_kept_within_the_bounds_of_forwarding(text: str, client: float, upstream: float) -> None:
    """One plain number serves both time-outs, each within its own bounds."""
    config = load(None, {"DNS_SERVER_QUERY_TIMEOUT_SECS": text}).config
    assert (config.server.query_timeout_s, config.forward.timeout_s) == (client, upstream)


@pytest.mark.parametrize(
    ("name", "text", "path"),
    [
        ("DNS_SERVER_MAX_CONCURRENT_QUERIES", "many", "server.max_concurrent_queries"),
        ("DNS_SERVER_ACTOR_POOL_SIZE", "0", "query.pool_size"),
        ("DNS_SERVER_ACTOR_POOL_SIZE", "100000", "query.pool_size"),
        ("DNS_SERVER_QUERY_TIMEOUT_SECS", "soon", "server.query_timeout_s"),
        ("DNS_SERVER_ENABLE_CACHING", "perhaps", "cache.enabled"),
    ],
)
def test_plain_name_with_a_wrong_value(name: str, text: str, path: str) -> None:
    """A wrong plain variable is told under its own name."""
    problems = _refused({name: text}).problems
    assert problems[0].path == path
    assert all(problem.source == f"environment {name}" for problem in problems if problem.path == path)


def test_empty_plain_variable_is_none(tmp_path: Path) -> None:
    """Compose files pass unset variables on as empty ones."""
    assert loaded(tmp_path, "", {"DNS_SERVER_ACTOR_POOL_SIZE": ""}).config.query.pool_size == 2
    assert only(refused(tmp_path, "", {"RAYDNS_SERVER__PORT": ""})).path == "server.port"
