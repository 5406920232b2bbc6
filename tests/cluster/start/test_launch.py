"""What is done on a machine before Ray starts there."""

from __future__ import annotations

import tempfile
from pathlib import Path

from raydns.cluster.start import launch, ray_settings
from raydns.nodes.paths import StateDir


def test_actors_logs_are_found_beside_the_others() -> None:
    """Proves that logs/actors leads into Ray's newest session, and that saying so twice is harmless."""
    with tempfile.TemporaryDirectory(prefix="rd-", dir="/tmp") as folder:
        state_dir = StateDir(Path(folder) / "s").create()
        launch.link_logs(state_dir)
        launch.link_logs(state_dir)
        assert (state_dir.logs / "actors").readlink() == ray_settings.temp_dir(state_dir) / "session_latest" / "logs"
