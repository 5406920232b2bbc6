"""What the pages promise is there: links, files, commands with their options, make targets."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from raydns.cluster.cli.main import raydns
from raydns.cluster.cli.shared import Settings
from raydns.schemas.config import Config

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PROSE = [page for page in PAGES if page.name not in {"plan.md", "errors.md", "cli.md"}]
_LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)(?:#[^)]*)?\)")
_COMMAND = re.compile(r"(?:^\$ |`|&& |\.venv/bin/)(raydns [a-z][^`&#|\n]*)", re.MULTILINE)
_SECTIONS = "|".join(name for name in Config.model_fields if name != "version")
_OPTION = re.compile(rf"`((?:{_SECTIONS})\.(?!py`|example)[a-z0-9_.]*[a-z0-9_])`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link of a page names a file that is there."""
    targets = [target for target in _LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def _commands(page: Path) -> list[str]:
    found = [
        command.strip().replace("|stop|status|takeover", "").rstrip(".")
        for command in _COMMAND.findall(page.read_text())
    ]
    return [command for command in found if "…" not in command and command != "raydns node"]


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_commands_are_commands(page: Path) -> None:
    """Every ``raydns …`` line parses: the command, its arguments and its options are there."""
    for line in _commands(page):
        with raydns.make_context("raydns", shlex.split(line)[1:], obj=Settings()) as context:
            _parse(context)


def _parse(context: click.Context) -> None:
    group = context.command
    arguments = [*getattr(context, "_protected_args", []), *context.args]
    if isinstance(group, click.Group):
        name, command, rest = group.resolve_command(context, arguments)
        assert command is not None
        with command.make_context(name, rest, parent=context) as inner:
            _parse(inner)


def test_readme_names_commands() -> None:
    """The test above reads something."""
    assert len(_commands(ROOT / "README.md")) > 8


@pytest.mark.parametrize("page", PROSE, ids=lambda page: page.name)
def test_options_are_options(page: Path) -> None:
    """Every ``section.option`` in a page is an option or a group of options."""
    for dotted in _OPTION.findall(page.read_text()):
        model: object = Config
        for part in dotted.removesuffix(".").split("."):
            fields = getattr(model, "model_fields", None)
            assert fields is not None, dotted
            assert part in fields, f"{page.name}: {dotted}"
            model = fields[part].annotation


def test_make_targets_of_the_pages_are_there() -> None:
    """Every ``make …`` in README and CONTRIBUTING is a target."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md"):
        named = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / name).read_text()))
        assert named <= targets


def test_every_decision_has_its_own_number() -> None:
    """The number in a decision's file name stands in its title, and no two share one."""
    files = sorted((ROOT / "docs/decisions").glob("*.md"))
    numbers = [int(file.name[:4]) for file in files]
    assert len(set(numbers)) == len(numbers)
    for number, file in zip(numbers, files, strict=True):
        assert file.read_text().startswith(f"# {number}. "), file.name


def test_licence() -> None:
    """The licence is the whole Apache licence."""
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
