"""The way in: a file and the environment become one checked ``Config``, or every problem at once.

Order, later wins: defaults, file, plain variables, ``RAYDNS_…`` variables. Nothing is ever half applied.
Paths in a file are relative to that file; in a variable, to the working directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from raydns.schemas.config import Config, environment
from raydns.schemas.config.checks import check, warn
from raydns.schemas.config.difference import RESTART_ONLY, diff, needs_restart
from raydns.schemas.config.document import dump, json_schema
from raydns.schemas.config.explain import explain
from raydns.schemas.config.migrate import migrate
from raydns.schemas.config.options import by_path, section_of
from raydns.schemas.config.problems import ConfigProblems, Problem, path_text
from raydns.schemas.config.source import Document, read_toml, read_yaml

__all__ = ["RESTART_ONLY", "Loaded", "diff", "dump", "json_schema", "load", "needs_restart"]

SIZE_MAX: Final = 4 * 1024 * 1024
"""Octets of a configuration file."""
SUFFIXES: Final = {".yaml": read_yaml, ".yml": read_yaml, ".toml": read_toml}


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that can be used, and where each of its options came from."""

    config: Config
    source: Path | None
    """The file; ``None`` where there was none."""
    provenance: dict[str, str] = field(default_factory=dict)
    """Dotted option → ``default``, ``FILE:LINE`` or ``environment NAME``."""
    warnings: list[str] = field(default_factory=list)
    """What works, but hardly as meant."""


def load(path: str | Path | None, environ: Mapping[str, str]) -> Loaded:
    """Reads the file (YAML or TOML by its suffix) and the environment.

    Args:
        path: the file; ``None``: defaults and environment alone.
        environ: the environment, such as ``os.environ``.

    Raises:
        ConfigProblems: everything that is wrong, each with path, value, hint and line.
    """
    file = Path(path).expanduser() if path is not None else None
    document = _read(file) if file is not None else Document("")
    overrides = environment.read(environ)
    problems = [*document.problems, *overrides.problems]
    if any(not problem.path for problem in document.problems):  # no text, no syntax: nothing more can be told
        raise ConfigProblems.of(problems)
    problems += migrate(document)
    _drop_empty_sections(document.tree)
    given = _Given(document, overrides)
    config, found = _validate(given)
    problems += found
    if config is not None:
        problems += [given.located(*problem) for problem in check(config)]
    if problems or config is None:
        raise ConfigProblems.of(_in_order(problems))
    return Loaded(config, file, given.provenance(config, environ), [*overrides.warnings, *warn(config)])


def _read(file: Path) -> Document:
    source = str(file)
    reader = SUFFIXES.get(file.suffix.lower())
    if reader is None:
        raise _file_problem(source, f"{file.suffix or 'no suffix'} is not a known suffix", "use .yaml, .yml or .toml")
    try:
        mode = file.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _file_problem(source, "is a directory", f"name a file in it, such as {file / 'raydns.yaml'}")
        if not stat.S_ISREG(mode):
            raise _file_problem(source, "is not a regular file")
        data = file.read_bytes()
    except FileNotFoundError:
        raise _file_problem(source, "no such file", "name another with --config, or start without one") from None
    except OSError as error:
        hint = f"make it readable for user {os.geteuid()}" if isinstance(error, PermissionError) else ""
        raise _file_problem(source, f"cannot be read: {error.strerror}", hint) from error
    if len(data) > SIZE_MAX:
        raise _file_problem(source, f"has {len(data)} octets; at most {SIZE_MAX} are read")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _file_problem(source, "is not UTF-8 text", "save it as UTF-8", line) from None
    return reader(text, source)


def _file_problem(source: str, message: str, hint: str = "", line: int | None = None) -> ConfigProblems:
    return ConfigProblems.of([Problem("", "", message, hint, line, source)])


def _drop_empty_sections(tree: dict[str, Any]) -> None:
    """A section whose options are all commented out is YAML's null; it means what is not there: the defaults."""
    for name, model_field in Config.model_fields.items():
        if name in tree and tree[name] is None and section_of(model_field) is not None:
            del tree[name]


class _Given:
    """File and environment laid over each other, and where each value came from."""

    def __init__(self, document: Document, overrides: environment.Overrides) -> None:
        self.document = document
        self.overrides = overrides
        self.tree: dict[str, Any] = _copy(document.tree)
        self._resolve_paths()
        for path, value in overrides.values.items():
            _put(self.tree, path, value)
        self._follow_pool_size()

    def has(self, path: tuple[str, ...]) -> bool:
        """Whether anybody gave the option."""
        return path in self.overrides.values or _get(self.document.tree, path) is not None

    def located(self, path: tuple[str | int, ...], value: str, message: str, hint: str = "") -> Problem:
        """The problem with its place: the variable or the line that the value came from."""
        for end in range(len(path), 0, -1):
            name = self.overrides.names.get(tuple(str(part) for part in path[:end]))
            if name is not None:
                return Problem(path_text(path), value, message, hint, None, f"environment {name}")
        line = self.document.line_of(path)
        return Problem(path_text(path), value, message, hint, line, self.document.source)

    def provenance(self, config: Config, environ: Mapping[str, str]) -> dict[str, str]:
        """Where every option came from."""
        found: dict[str, str] = {}
        for path, option in by_path().items():
            if path in self.overrides.names:
                found[option.name] = f"environment {self.overrides.names[path]}"
            elif _get(self.document.tree, path) is None:
                found[option.name] = "default"
            else:
                line = self.document.line_of(path)
                found[option.name] = f"{self.document.source}:{line}" if line else self.document.source
        if environ.get(config.llm.api_key_env):
            found["llm.api_key"] = f"environment {config.llm.api_key_env}"
        return found

    def _follow_pool_size(self) -> None:
        """A pool size outside bounds that nobody gave moves the bound: whoever asks for 16 actors means it."""
        try:
            size = int(_get(self.tree, ("query", "pool_size")))
        except (TypeError, ValueError):
            return
        defaults = Config.model_fields["query"].default
        if not self.has(("query", "pool_max")) and defaults.pool_max < size:
            _put(self.tree, ("query", "pool_max"), size)
        if not self.has(("query", "pool_min")) and 1 <= size < defaults.pool_min:
            _put(self.tree, ("query", "pool_min"), size)

    def _resolve_paths(self) -> None:
        """Paths in a file are relative to it, so that a command says the same from every directory."""
        if not self.document.source:
            return
        base = Path(self.document.source).absolute().parent
        for path in (("server", "state_dir"), ("llm", "api_key_file"), ("llm", "embedded", "model_path")):
            value = _get(self.tree, path)
            if isinstance(value, str) and value:
                _put(self.tree, path, _below(base, value))
        files = _get(self.tree, ("zones", "files"))
        for zone in files if isinstance(files, list) else ():
            if isinstance(zone, dict) and isinstance(zone.get("file"), str) and zone["file"]:
                zone["file"] = _below(base, zone["file"])


def _below(base: Path, text: str) -> str:
    return os.path.normpath(base / Path(text).expanduser()) if "\0" not in text else text


def _validate(given: _Given) -> tuple[Config | None, list[Problem]]:
    """The configuration, and all that the models refuse.

    With problems, the configuration is what is left without the refused options, so that the checks between options
    can speak in the same breath.
    """
    problems: list[Problem] = []
    tree = _copy(given.tree)
    for _ in range(3):  # a bound between options is told only once the options themselves are right
        try:
            return _expand(Config.model_validate(tree)), problems
        except ValidationError as error:
            for path, *said in explain(error):
                problems.append(given.located(path, *said))
                _remove(tree, path)
    return None, problems


def _expand(config: Config) -> Config:
    """``~`` becomes the home directory, also in a variable and in the default; a variable's path gets absolute."""
    server = config.server.model_copy(update={"state_dir": _absolute(config.server.state_dir)})
    files = tuple(zone.model_copy(update={"file": _absolute(zone.file)}) for zone in config.zones.files)
    zones = config.zones.model_copy(update={"files": files})
    llm = config.llm.model_copy(update={"api_key_file": _absolute(config.llm.api_key_file)})
    return config.model_copy(update={"server": server, "zones": zones, "llm": llm})


def _absolute(text: str) -> str:
    return _below(Path.cwd(), text) if text else ""


def _remove(tree: dict[str, Any], path: tuple[str | int, ...]) -> None:
    """Takes out the whole option that a path leads into: the items of a list keep their numbers or go together."""
    names: list[str] = []
    for part in path:
        if isinstance(part, int):
            break
        names.append(part)
    group: Any = tree
    for name in names[:-1]:
        group = group.get(name) if isinstance(group, dict) else None
    if isinstance(group, dict) and names:
        group.pop(names[-1], None)


def _in_order(problems: list[Problem]) -> list[Problem]:
    """Each once, those of the file first, by line."""
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.line is None, problem.line or 0))


def _get(tree: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(tree, dict):
            return None
        tree = tree.get(part)
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        inner = tree.get(part)
        if inner is None:
            inner = tree[part] = {}
        if not isinstance(inner, dict):
            return  # the file gave a section a single value; the models tell that
        tree = inner
    tree[path[-1]] = value


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value
