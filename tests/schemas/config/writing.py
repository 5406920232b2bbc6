"""Helpers of these tests: write a file, load it, and keep what was refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from raydns.schemas.config.load import Loaded, load
from raydns.schemas.config.problems import ConfigProblems, Problem


def loaded(directory: Path, text: str, environ: Mapping[str, str] | None = None, name: str = "c.yaml") -> Loaded:
    """What ``load`` makes of this text."""
    file = directory / name
    file.write_text(text)
    return load(file, environ or {})


def refused(
    directory: Path, text: str, environ: Mapping[str, str] | None = None, name: str = "c.yaml"
) -> ConfigProblems:
    """The error with which ``load`` refuses this text."""
    with pytest.raises(ConfigProblems) as caught:
        loaded(directory, text, environ, name)
    return caught.value


def only(error: ConfigProblems) -> Problem:
    """The single problem of an error."""
    assert len(error.problems) == 1, error.message
    return error.problems[0]
