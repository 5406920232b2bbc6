"""Every example can be used as it stands, and the example zone holds one of everything."""

from __future__ import annotations

import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import dns.name
import dns.rdatatype
import dns.zone
import jsonschema
import pytest
import yaml

from raydns.schemas.config.load import json_schema, load

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted(path for path in EXAMPLES.iterdir() if path.suffix in {".yaml", ".toml"})
APEX = dns.name.from_text("raydns.example.")


def test_there_are_examples() -> None:
    """The examples that the documentation names are there."""
    assert {path.name for path in FILES} >= {"raydns.yaml", "forwarder.yaml", "authoritative.yaml", "minimal.toml"}


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_example_loads(file: Path) -> None:
    """The loader takes it without a warning."""
    loaded = load(file, {})
    assert loaded.warnings == []


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_example_fits_the_schema(file: Path) -> None:
    """An editor that checks against the published schema finds nothing wrong."""
    text = file.read_text()
    tree: Any = tomllib.loads(text) if file.suffix == ".toml" else yaml.safe_load(text)
    jsonschema.validate(tree, json_schema())


def test_make_run_configuration() -> None:
    """``make run`` serves the example zone, answers any TXT question, writes text, and keeps its state in build/."""
    config = load(EXAMPLES / "raydns.yaml", {}).config
    assert config.server.state_dir == str(EXAMPLES.parent / "build/run")
    assert config.server.port == 1053
    assert [zone.name for zone in config.zones.files] == ["raydns.example."]
    assert config.llm.catch_all == "stub"
    assert config.telemetry.log.format == "text"
    assert config.forward.rules == ()


@pytest.fixture(scope="module")
def zone() -> dns.zone.Zone:
    """The example zone as dnspython reads it."""
    return dns.zone.from_file(str(EXAMPLES / "zones/raydns.example.zone"), APEX, relativize=False)


def test_zone_holds_every_type(zone: dns.zone.Zone) -> None:
    """All types that the first test of the issue asks for are there, and an unknown one."""
    types = {dns.rdatatype.to_text(rdataset.rdtype) for _, rdataset in zone.iterate_rdatasets()}
    wanted = "SOA NS A AAAA MX TXT SRV CAA SVCB HTTPS TLSA SSHFP NAPTR LOC DNAME CNAME TYPE65280"
    assert types >= set(wanted.split())


def test_zone_holds_every_case(zone: dns.zone.Zone) -> None:
    """Wildcard, delegation with glue, alias chain, empty non-terminal and four kilobytes of text are there."""
    names = {name.to_text() for name in zone}
    assert "*.wild.raydns.example." in names
    assert {"sub.raydns.example.", "ns1.sub.raydns.example."} <= names
    assert "empty.raydns.example." not in names
    assert "below.empty.raydns.example." in names
    chain = ["alias1", "alias2", "alias3", "www"]
    for here, there in pairwise(chain):
        assert zone.find_rdataset(f"{here}.raydns.example.", "CNAME")[0].target.to_text() == f"{there}.raydns.example."
    text = zone.find_rdataset("big.raydns.example.", "TXT")[0]
    assert sum(len(part) for part in text.strings) == 4096
    assert max(len(part) for part in text.strings) == 255
