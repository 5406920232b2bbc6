"""What is on disk before the ingress starts; and the small talk with the service manager."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.supervisor import boot, notify
from raydns.schemas.cluster import Version
from raydns.schemas.config import Config
from raydns.schemas.errors import StateError


@pytest.fixture
def state_dir() -> Iterator[StateDir]:
    """A state directory."""
    path = Path(tempfile.mkdtemp(prefix="rd-", dir="/tmp"))
    yield StateDir(path).create()
    shutil.rmtree(path, ignore_errors=True)


def test_a_head_makes_its_secret_and_a_first_snapshot(state_dir: StateDir) -> None:
    """The first start knows its own configuration, version (0, 1), the secret's ring seed, and nothing else."""
    config = Config.model_validate({"server": {"port": 5353}})
    made = boot.prepare(state_dir, config)
    assert made.version == Version(0, 1)
    assert made.ring.seed == secret.ring_seed(secret.load(state_dir.secret))
    assert made.zones == []
    assert Known(state_dir).config() == config
    key = state_dir.secret.read_bytes()
    boot.prepare(state_dir, config)
    assert state_dir.secret.read_bytes() == key


def test_a_machine_that_joins_never_makes_up_a_secret(state_dir: StateDir) -> None:
    """Without the cluster's secret it does not start, and says where to get it."""
    config = Config.model_validate({"cluster": {"head": False, "address": "192.0.2.1:6379"}})
    with pytest.raises(StateError, match="no cluster secret") as caught:
        boot.prepare(state_dir, config)
    assert "copy" in caught.value.hint
    assert not state_dir.secret.exists()


def test_only_the_machines_own_part_is_taken_from_the_file_later(state_dir: StateDir) -> None:
    """A snapshot of the controller keeps its version and its cluster-wide options; own sections follow the file."""
    snapshot = boot.prepare(state_dir, Config())
    snapshot.version = Version(3, 17)
    decided = Config.model_validate({"cache": {"shards": 3}})
    snapshot.config = decided.model_dump(mode="json")
    Known(state_dir).save(snapshot)
    boot.prepare(state_dir, Config.model_validate({"server": {"port": 5300}}))
    found = Known(state_dir).load()
    assert found is not None
    assert found.version == Version(3, 17)
    config = Known(state_dir).config()
    assert config.server.port == 5300
    assert config.cache == decided.cache


def test_notify_reaches_both_kinds_of_addresses(state_dir: StateDir, caplog: pytest.LogCaptureFixture) -> None:
    """A path and an abstract name are told; nobody there is a warning; no manager is silence."""
    for address in (str(state_dir.run / "notify"), f"@raydns-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind("\0" + address[1:] if address.startswith("@") else address)
            manager.settimeout(5)
            notify.notify({"NOTIFY_SOCKET": address}, "READY=1")
            assert manager.recv(100) == b"READY=1"
    notify.notify({}, "READY=1")
    assert caplog.text == ""
    notify.notify({"NOTIFY_SOCKET": str(state_dir.run / "nobody")}, "READY=1")
    assert "service manager was not told" in caplog.text


def test_listen_fds_of_somebody_else_are_not_taken() -> None:
    """Hints meant for another process are dropped, so that no child takes them up."""
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "PATH": "/bin"}
    assert notify.take_listen_fds(environ) == []
    assert environ == {"PATH": "/bin"}
