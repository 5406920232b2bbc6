"""Text of a configuration file as plain values, with the line of every option: YAML and TOML.

YAML is read with fewer surprises than its version 1.1 has: only ``true`` and ``false`` are booleans (a mode may be
called ``off``), ``12:30`` is text, a key that stands twice is refused, and an alias cannot blow a file up. What is
text here is text to a YAML 1.1 writer as well, so that a dumped configuration reads back equal.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml

from raydns.schemas.config.problems import Problem, path_text

NODES_MAX: Final = 200_000
"""Values in one file, aliases written out: a thousand zones are five thousand."""
DEPTH_MAX: Final = 32
"""Levels of nesting; our own options need six."""

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """What a file says, and where it says it."""

    source: str
    tree: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, path: Path) -> int | None:
        """The line of an option, or of the nearest group around it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[:-1]
        return None

    def add(self, path: Path, message: str, hint: str = "", line: int | None = None, value: str = "") -> None:
        """Notes a problem of the file itself."""
        self.problems.append(Problem(path_text(path), value, message, hint, line, self.source))


if TYPE_CHECKING:
    _Base = yaml.SafeLoader
else:
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, not in every build


class _Loader(_Base):
    """A safe loader whose plain scalars are null, true, false, decimal or hexadecimal numbers, or text."""


_DROPPED: Final = {f"tag:yaml.org,2002:{kind}" for kind in ("bool", "int", "float", "timestamp", "merge", "value")}
_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0] not in _DROPPED]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|[-+]?\.inf|\.nan", "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


class _TooMuch(Exception):
    """The file expands to more than it may."""


def read_yaml(text: str, source: str) -> Document:
    """The values and lines of a YAML file; whatever is wrong stands in ``problems``, nothing is raised."""
    document = Document(source)
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is not None:
                _fill(document, _Walk(document, loader).convert(node, (), 0))
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        _note_syntax(document, error, text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else None
        document.add((), f"not text: {error.reason}", "a configuration file is UTF-8 text", line)
    except (_TooMuch, RecursionError):
        document.add((), f"nested deeper than {DEPTH_MAX} levels, or more than {NODES_MAX} values")
    return document


def read_scalar_or_list(text: str) -> Any:
    """The value of an environment variable written as YAML; raises ``ValueError`` with a sentence."""
    document = read_yaml(f"value: {text}", "")
    if document.problems:
        raise ValueError(document.problems[0].message)
    return document.tree["value"]


def _note_syntax(document: Document, error: yaml.MarkedYAMLError, text: str) -> None:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (None, 0)
    said = ", ".join(part for part in (error.context, error.problem) if part)
    at = f" (line {line}, column {column})" if line else ""
    document.add((), f"not YAML{at}: {said}", _syntax_hint(text, line), line)


def _syntax_hint(text: str, line: int | None) -> str:
    lines = text.splitlines()
    near = lines[max(0, (line or 1) - 2) : line or 1]
    if any("\t" in one[: len(one) - len(one.lstrip())] for one in near):
        return "indent with spaces; YAML takes no tabs"
    if any(re.search(r"[:\-,\[] *\[[0-9a-fA-F]*:", one) for one in near):
        return "put an IPv6 address with a port in quotes: '[::1]:53'"
    if any(re.search(r": *[@`%*&]", one) for one in near):
        return "put a value that begins with a special character in quotes"
    return "options are written `name: value`, groups are indented by spaces"


class _Walk:
    """Turns composed nodes into values; counts them, since an alias repeats what it names."""

    def __init__(self, document: Document, loader: yaml.SafeLoader) -> None:
        self._document = document
        self._loader = loader
        self._nodes = 0

    def convert(self, node: yaml.Node, path: Path, depth: int) -> Any:
        """The node's value; its line is noted under ``path``."""
        self._nodes += 1
        if depth > DEPTH_MAX or self._nodes > NODES_MAX:
            raise _TooMuch
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item, (*path, i), depth + 1) for i, item in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except ValueError as error:
            self._document.add(path, f"cannot be read: {error}", line=node.start_mark.line + 1)
            return None

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = key_node.value, key_node.start_mark.line + 1
            if not isinstance(key, str):
                self._document.add(path, "a key has to be a word", line=line)
                continue
            here = (*path, key)
            if key in values:
                first = self._document.lines[here]
                self._document.add(here, f"stands twice; first on line {first}", "keep one of them", line)
                continue
            if key == "<<":
                self._document.add(here, "merge keys are not read", "write the options out", line)
                continue
            self._document.lines[here] = line
            values[key] = self.convert(value_node, here, depth + 1)
        return values


def _fill(document: Document, value: Any) -> None:
    if isinstance(value, dict):
        document.tree = value
    elif value is not None:
        kind = "a list" if isinstance(value, list) else "a single value"
        document.add((), f"the file holds {kind}", "it has to hold sections such as `server:`", 1)


_TOML_HEADER: Final = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_TOML_KEY: Final = re.compile(r"""^\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+))*)\s*=""")


def read_toml(text: str, source: str) -> Document:
    """The values of a TOML file, and the lines of its tables and of keys that stand first on a line."""
    document = Document(source)
    try:
        document.tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = int(found[1]) if found else None
        document.add((), f"not TOML: {error}", 'text stands in quotes: name = "value"', line)
        return document
    except RecursionError:
        document.add((), "nested too deep to be read")
        return document
    document.lines = _toml_lines(text)
    return document


def _toml_lines(text: str) -> dict[Path, int]:
    """Lines by a scan, since tomllib tells none; one inside a multi-line string may name a path that is not there."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TOML_HEADER.match(line):
            table = _toml_path(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                lines.setdefault(table, number)
                table = (*table, counts[table])
            lines.setdefault(table, number)
        elif key := _TOML_KEY.match(line):
            lines.setdefault((*table, *_toml_path(key[1])), number)
    return lines


def _toml_path(dotted: str) -> Path:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
