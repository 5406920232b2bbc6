"""The house stands as the architecture page says: four floors behind one name, each file saying what it is."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TypeGuard

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = ("actors", "cluster", "nodes", "schemas")
LINES_MAX = 500
CODE = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("floor", FLOORS)
def test_floor_is_a_link(floor: str) -> None:
    """``src/raydns`` holds relative links, so that everything is imported as ``raydns.…``."""
    link = ROOT / "src/raydns" / floor
    assert link.is_symlink()
    assert os.readlink(link) == f"../../{floor}"


def test_every_folder_says_what_it_is() -> None:
    """Each package has a docstring: what it owns, whom it may call, one thing it never does."""
    packages = [path for path in CODE if path.name == "__init__.py"]
    silent = [_name(path) for path in packages if not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_every_file_begins_with_a_sentence() -> None:
    """The first line of a file says what it is."""
    silent = [_name(path) for path in CODE if path.read_text() and not re.match(r'r?"""\S', path.read_text())]
    assert silent == []


def test_no_file_outgrows_its_noun() -> None:
    """Beyond five hundred lines a noun wants a file of its own."""
    sizes = {_name(path): len(path.read_text().splitlines()) for path in CODE}
    assert {name: size for name, size in sizes.items() if size > LINES_MAX} == {}


def test_ray_is_imported_in_actor_files_and_the_cluster_floor_only() -> None:
    """Below the cluster floor only files called ``actor.py`` know Ray."""
    importing = {
        _name(path) for path in CODE if re.search(r"^\s*(import ray\b|from ray[. ])", path.read_text(), re.MULTILINE)
    }
    assert {name for name in importing if not name.startswith("cluster/") and not name.endswith("/actor.py")} == set()


def test_imports_only_go_down() -> None:
    """The import-linter contracts hold."""
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_placeholder_is_left() -> None:
    """Nothing in the code is put off to later, and no exception is swallowed whole."""
    put_off = re.compile(r"#\s*(TODO|FIXME|XXX)\b|raise NotImplementedError|except Exception:\s*\n\s*pass\b")
    assert [_name(path) for path in CODE if put_off.search(path.read_text())] == []


def test_every_test_opens_with_a_sentence() -> None:
    """Each test says what it proves."""
    silent: list[str] = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if _is_test(node) and not ast.get_docstring(node):
                silent.append(f"{_name(path)}:{node.lineno} {node.name}")
    assert silent == []


def _is_test(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
