"""From what is known to what is installed, and this machine's own prefixes."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydns.nodes.ingress import tables
from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.schemas import names
from raydns.schemas.cluster import Flush, Version, ZoneEntry, first_snapshot
from raydns.schemas.config import Config
from raydns.schemas.errors import StateError

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0102A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
tun0\t00000000\t00000000\t0001\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth0\t000A0A0A\t0102A8C0\t0003\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth1\t00007BCB\t00000000\t0001\t0\t0\t100\t0000FFFF\t0\t0\t0
"""
ADDRESSES = """00000000000000000000000000000001 01 80 10 80       lo
20010db8000000010000000000000005 02 40 00 80     eth0
fe800000000000000000000000000001 02 40 20 80     eth0
"""


@pytest.fixture(name="known")
def known_fixture(tmp_path: Path) -> Known:
    """The memory of a new machine."""
    state_dir = StateDir(tmp_path / "s")
    state_dir.create()
    return Known(state_dir)


def test_own_prefixes_are_links_and_never_the_world(tmp_path: Path) -> None:
    """Connected routes and interface addresses count; default routes, gateways and single hosts do not."""
    (tmp_path / "route").write_text(ROUTES)
    (tmp_path / "inet6").write_text(ADDRESSES)
    found = tables.interface_prefixes(tmp_path / "route", tmp_path / "inet6")
    assert found == ("192.168.2.0/24", "203.123.0.0/16", "2001:db8:0:1::/64", "fe80::/64")


@pytest.mark.parametrize("text", ["", "x\n", "a\nb c d\n", "h\ne 1 2 zz 4 5 6 7\n"])
def test_a_strange_proc_is_no_reason_to_fail(tmp_path: Path, text: str) -> None:
    """Missing or malformed files give no prefixes, and a log line."""
    (tmp_path / "route").write_text(text)
    assert tables.interface_prefixes(tmp_path / "route", tmp_path / "missing") == ()


def test_the_real_proc_is_read() -> None:
    """Whatever this machine has, it can be read."""
    assert all("/" in prefix for prefix in tables.interface_prefixes())


def test_nothing_known_is_none(known: Known) -> None:
    """A new machine has nothing to install."""
    assert tables.read(known, keep_old=False) is None


def test_a_snapshot_becomes_a_state(known: Known) -> None:
    """Versions, ring, zones, flushes and configuration arrive; the class table has its section's version."""
    snapshot = first_snapshot(Config.model_validate({"server": {"name": "m7"}}).model_dump(mode="json"), 99)
    snapshot.version = Version(2, 9)
    snapshot.section_versions["config"] = Version(2, 4)
    snapshot.zones = [ZoneEntry(names.from_text("example."), 0, 0, 1, 1, None)]
    snapshot.flushes = [Flush(names.ROOT, True, Version(2, 9))]
    known.save(snapshot)
    found = tables.read(known, keep_old=True)
    assert found is not None
    state = found[1]
    assert (state.version, state.class_version) == (Version(2, 9).packed, Version(2, 4).packed)
    assert (state.machine, state.ring.seed, len(state.zones), len(state.flushes)) == ("m7", 99, 1, 1)


def test_a_configuration_that_cannot_be_read(known: Known) -> None:
    """A start serves with safe defaults; a reload says what is wrong and keeps what it has."""
    known.save(first_snapshot({"server": {"prot": 53}}, 1))
    found = tables.read(known, keep_old=False)
    assert found is not None
    assert found[1].config == Config()
    with pytest.raises(StateError, match=r"server\.prot.*the one before stays"):
        tables.read(known, keep_old=True)
