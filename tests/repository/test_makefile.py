"""make and .ci: help for every target, clear words where a machine lacks something, nothing done twice."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def _make(*words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environ}
    environment.pop("MAKEFLAGS", None)  # this test may itself run below make
    environment.pop("MAKELEVEL", None)
    return subprocess.run(
        ["make", *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def _script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


def test_help_lists_every_target() -> None:
    """`make` by itself shows what there is."""
    shown = set(re.findall(r"^  make (\S+)", _make().stdout, re.MULTILINE))
    assert shown >= {"help", "env", "run", "test", "lint", "bench", "clean"}
    targets = set(re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[0].split())
    assert targets - shown == {"test-packages"}


def test_python_that_is_too_old(tmp_path: Path) -> None:
    """The message says which Python is there and which is needed; nothing is made."""
    old = _script(tmp_path / "python", '[[ "$1" == --version ]] && echo "Python 3.9.2"; [[ "$1" == --version ]]')
    done = _make("env", f"PYTHON={old}", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert f"{old} is Python 3.9.2; raydns needs Python 3.11 to 3.14." in done.stderr
    assert not (tmp_path / "venv").exists()


def test_no_python_at_all(tmp_path: Path) -> None:
    """Without any usable Python the hint says how to name one."""
    done = _make("env", "PYTHON=", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "raydns needs Python 3.11 to 3.14; python3 here is" in done.stderr
    assert "make env PYTHON=/path/to/python3.11" in done.stderr


def test_python_without_venv(tmp_path: Path) -> None:
    """Debian's Python without python3-venv is told with the package's name."""
    lean = _script(tmp_path / "python", '[[ "$*" == *ensurepip* ]] && exit 1; exec python3 "$@"')
    done = _make("env", f"PYTHON={lean}", f"VENV={tmp_path}/venv")
    assert done.returncode != 0
    assert "cannot make virtual environments" in done.stderr
    assert "apt-get install python3-venv" in done.stderr


def test_environment_is_made_once(tmp_path: Path) -> None:
    """With the stamp newer than pyproject and pins nothing is installed again; with an older one it is."""
    stamp = tmp_path / ".made"
    stamp.touch()
    assert _make("-q", "env", f"VENV={tmp_path}").returncode == 0
    os.utime(stamp, (1, 1))
    assert _make("-q", "env", f"VENV={tmp_path}").returncode == 1


def test_clean_refuses_while_a_node_runs() -> None:
    """The state of a running node is not removed under its feet."""
    recipe = MAKEFILE.split("\nclean:")[1].split("\n\n")[0]
    assert recipe.index("flock --nonblock") < recipe.index("rm -rf build")
    assert "raydns down" in recipe


def _packages(tmp_path: Path, installed: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `.ci/packages` with a dpkg-query that knows the packages in ``installed``, and without sudo."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("bash", "sed", "grep", "cat"):
        (tools / tool).symlink_to(f"/bin/{tool}")
    if installed:
        _script(tools / "dpkg-query", f'[[ " {installed} " == *" ${{@: -1}} "* ]] && echo installed')
    tmp_path.chmod(0o755)
    (tmp_path / "list").write_text("# tools\nunbound   # a resolver\n\nnsd\n")
    return subprocess.run(
        [ROOT / ".ci/packages", tmp_path / "list"],
        env={"PATH": str(tools)},
        user=user,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_packages_that_are_there(tmp_path: Path) -> None:
    """Nothing is said and nothing done where everything is installed."""
    done = _packages(tmp_path, "unbound nsd")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_packages_on_another_system(tmp_path: Path) -> None:
    """Where there is no dpkg the programs are named, and tests go on without them."""
    done = _packages(tmp_path, "")
    assert done.returncode == 0
    assert "tests need the programs of these packages: unbound nsd" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_packages_without_root(tmp_path: Path) -> None:
    """Somebody without root and sudo gets the command to give to somebody who has them."""
    for parent in [tmp_path, *tmp_path.parents]:
        if str(parent).startswith("/tmp/pytest"):
            parent.chmod(0o755)
    done = _packages(tmp_path, "unbound", user=65534)
    assert done.returncode == 1
    assert "tests need packages that only root can install: nsd" in done.stderr
    assert "sudo apt-get install --no-install-recommends nsd" in done.stderr


def test_ci_runs_lint_and_all_tests() -> None:
    """`.ci/run` stops at the first failure, checks style, and runs every test."""
    text = (ROOT / ".ci/run").read_text()
    assert "set -euo pipefail" in text
    assert text.index("make lint") < text.index("make test\n")
    assert os.access(ROOT / ".ci/run", os.X_OK)
    recipe = MAKEFILE.split("\ntest:")[1].split("\n\n")[0]
    assert "-m pytest $(PYTEST_ARGS)" in recipe
    assert "||" not in recipe
