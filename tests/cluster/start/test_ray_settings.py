"""How Ray is started."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raydns.cluster.start import ray_settings
from raydns.cluster.start.launch import clear
from raydns.cluster.start.plan import ray_plan
from raydns.nodes.paths import StateDir
from raydns.schemas.config import Config


@pytest.fixture
def state_dir() -> Iterator[StateDir]:
    """A state directory with a short path."""
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp") as folder:
        yield StateDir(Path(folder) / "state").create()


def test_ray_s_directory_is_short_and_its_own_for_each_state_directory(state_dir: StateDir) -> None:
    """Proves that two clusters on a machine do not meet, and that Ray's socket paths fit."""
    mine = ray_settings.temp_dir(state_dir)
    assert len(str(mine)) <= ray_settings.RAY_DIR_SIZE_MAX
    assert mine == ray_settings.temp_dir(StateDir(state_dir.path))
    assert mine != ray_settings.temp_dir(StateDir(state_dir.path.parent / "other"))


def test_ports_of_the_head_survive_a_restart(state_dir: StateDir) -> None:
    """Proves that the GCS comes back where others look for it, and that a configured port wins."""
    first = ray_settings.head_ports(Config(), state_dir)
    assert ray_settings.head_ports(Config(), state_dir) == first
    assert len({first.gcs, first.client, first.dashboard}) == 3
    fixed = ray_settings.head_ports(Config.model_validate({"cluster": {"ray_port": 7001}}), state_dir)
    assert fixed.gcs == 7001
    (state_dir.path / "ray-ports.json").write_text("not json")
    assert ray_settings.head_ports(Config(), state_dir).gcs > 1023


def test_whoever_asks_first_decides_the_ports_for_all(tmp_path: Path) -> None:
    """Launcher and bootstrap ask at once: with two answers the bootstrap waited for a GCS that was elsewhere."""
    for turn in range(20):
        state_dir = StateDir(tmp_path / str(turn))
        state_dir.create()
        together = threading.Barrier(4)

        def ask(barrier: threading.Barrier = together, place: StateDir = state_dir) -> ray_settings.HeadPorts:
            barrier.wait(10)
            return ray_settings.head_ports(Config(), place)

        with ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(ask) for _ in range(4)]
            assert len({answer.result(10) for answer in asked}) == 1


def test_a_machine_by_itself_keeps_ray_on_loopback(state_dir: StateDir) -> None:
    """Proves that Ray's ports, which are remote code execution, are bound to loopback and need a token."""
    env = ray_settings.environment(Config(), state_dir)
    assert env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert env["RAY_AUTH_MODE"] == "token"
    command = ray_settings.start_command(Config(), state_dir, ray_settings.HeadPorts(1, 2, 3))
    assert "--node-ip-address=127.0.0.1" in command
    assert "--head" in command


def test_a_machine_that_joins_names_the_head(state_dir: StateDir) -> None:
    """Proves that a worker starts no GCS and no controller."""
    raw = {"cluster": {"head": False, "address": "10.0.0.1:6379", "node_address": "10.0.0.2"}}
    config = Config.model_validate(raw)
    command = ray_settings.start_command(config, state_dir, ray_settings.HeadPorts(1, 2, 3))
    assert "--address=10.0.0.1:6379" in command
    assert "--head" not in command
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in ray_settings.environment(config, state_dir)
    assert ray_plan(config, state_dir, None).bootstrap is None


def test_the_token_is_made_once_and_is_readable_by_its_owner_only(state_dir: StateDir) -> None:
    """Proves that no token is in the plan's environment, only the path of a 0600 file."""
    plan = ray_plan(Config(), state_dir, None)
    token = state_dir.ray_token.read_text()
    assert os.stat(state_dir.ray_token).st_mode & 0o777 == 0o600
    assert token not in "".join([*plan.env.values(), *plan.start, *(plan.bootstrap or [])])
    ray_plan(Config(), state_dir, None)
    assert state_dir.ray_token.read_text() == token


@pytest.mark.parametrize("keep", [True, False])
def test_what_an_earlier_ray_left_is_cleared(state_dir: StateDir, keep: bool) -> None:
    """Proves that the GCS's memory goes only where no other machine depends on it."""
    session = ray_settings.temp_dir(state_dir) / "session_old"
    session.mkdir(parents=True)
    state_dir.gcs.mkdir(exist_ok=True)
    (state_dir.gcs / "CURRENT").write_text("x")
    clear(state_dir, keep_gcs=keep)
    assert not session.exists()
    assert (state_dir.gcs / "CURRENT").exists() is keep
