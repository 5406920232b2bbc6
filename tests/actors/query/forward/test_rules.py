"""Forward rules: the longest suffix, and what the operator is told about what is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydns.actors.query.forward.own import OwnAddresses, from_config, from_file
from raydns.actors.query.forward.rules import parse_target, problems, table
from raydns.schemas.config.forward import ForwardConfig, UpstreamConfig
from raydns.schemas.config.server import ServerConfig
from tests.actors.query.kit import name


def forward(*rules: tuple[str, str]) -> ForwardConfig:
    """A section with one upstream a rule."""
    return ForwardConfig.model_validate({"rules": [{"suffix": s, "upstreams": [{"address": a}]} for s, a in rules]})


def test_the_longest_suffix_wins() -> None:
    """By labels, not by letters."""
    rules, found = table(forward((".", "192.0.2.1"), ("corp.", "192.0.2.2"), ("eu.corp.", "192.0.2.3")), OwnAddresses())
    assert not found

    def host(text: str) -> str:
        rule = rules.match(name(text))
        assert rule is not None
        return rule.targets[0].host

    assert host("a.eu.corp.") == "192.0.2.3"
    assert host("EU.corp.") == "192.0.2.3"
    assert host("neu.corp.") == "192.0.2.2"
    assert host("notcorp.") == "192.0.2.1"
    assert host(".") == "192.0.2.1"
    only, _ = table(forward(("corp.", "192.0.2.2")), OwnAddresses())
    assert only.match(name("example.com.")) is None
    assert table(ForwardConfig(), OwnAddresses())[0].match(name("a.")) is None


@pytest.mark.parametrize(
    ("text", "host", "port", "by_name"),
    [
        ("192.0.2.1", "192.0.2.1", 53, False),
        ("192.0.2.1:5353", "192.0.2.1", 5353, False),
        ("[2001:db8::1]:53", "2001:db8::1", 53, False),
        ("2001:db8::1", "2001:db8::1", 53, False),
        ("DNS.example.net", "dns.example.net", 53, True),
        ("dns.example.net:5300", "dns.example.net", 5300, True),
    ],
)
def test_addresses_and_names_are_read(text: str, host: str, port: int, by_name: bool) -> None:
    """Every form that the configuration documents."""
    target = parse_target(UpstreamConfig(address=text))
    assert (target.host, target.port, target.by_name) == (host, port, by_name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("192.0.2.300", "neither an IP address nor a host name"),
        ("192.0.2.1:99999", "is not a port"),
        ("192.0.2.1:0", "port 0"),
        ("0.0.0.0", "no address of a server"),
        ("224.0.0.1", "no address of a server"),
        ("dns_server..net", "neither"),
        ("[::1", "is not a port"),
        ("", "neither"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, says: str) -> None:
    """The path of the option, the value, and what to write instead."""
    (found,) = problems(forward((".", "192.0.2.1"), ("corp.", text)), OwnAddresses())
    assert found.where == "forward.rules[1].upstreams[0].address"
    assert says in found.message
    assert "ADDRESS:PORT" in found.hint


def test_all_problems_come_at_once() -> None:
    """Two bad upstreams, a doubled suffix and a range the wrong way round are four problems."""
    section = ForwardConfig.model_validate(
        {
            "rules": [
                {"suffix": "a.", "upstreams": [{"address": "1.2.3"}, {"address": "224.0.0.1"}]},
                {"suffix": "A.", "upstreams": [{"address": "192.0.2.1"}]},
            ],
            "port_min": 5000,
            "port_max": 4000,
        }
    )
    assert len(problems(section, OwnAddresses())) == 4


def test_asking_ourselves_is_refused() -> None:
    """An upstream that is one of our own listening addresses is an error that says so, and is never used."""
    server = ServerConfig(listen=("127.0.0.1:5300", "0.0.0.0"), port=1053)
    own = OwnAddresses(from_config(server), local=lambda host: host == "10.0.0.7")
    for address, ours in [
        ("127.0.0.1:5300", True),
        ("127.0.0.1:1053", True),
        ("10.0.0.7:1053", True),
        ("10.0.0.7:5300", False),
        ("10.0.0.8:1053", False),
        ("127.0.0.1:53", False),
        ("[::ffff:127.0.0.1]:1053", True),
    ]:
        section = forward((".", address))
        rules, found = table(section, own)
        assert bool(found) is ours, address
        assert bool(rules.rules[0].targets) is not ours
        if ours:
            assert "itself" in found[0].message
            assert found[0].where == "forward.rules[0].upstreams[0].address"


def test_bound_addresses_come_from_the_file(tmp_path: Path) -> None:
    """``run/addresses.json`` tells ports that the configuration left open; damage is passed over."""
    path = tmp_path / "addresses.json"
    assert from_file(path) == []
    path.write_text(json.dumps({"udp": [["127.0.0.1", 5301]], "tcp": [["::1", 5301]]}))
    assert from_file(path) == [("127.0.0.1", 5301), ("::1", 5301)]
    for damaged in ("{", "[]", '{"udp": [["nowhere", 1]]}', '{"udp": 5}'):
        path.write_text(damaged)
        assert from_file(path) == []
