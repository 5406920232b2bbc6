"""Master files (RFC 1035 section 5) to zones: directives, entries, and every error of a file at once.

Rules of this file: an error never stops the reading, it costs its own entry; nothing is read but what
``read_include`` gives; what comes out has passed ``checks.py``. Default of a TTL that is not stated: $TTL (RFC 2308
section 4), else the last one stated (RFC 1035 section 5.1), else MINIMUM of the SOA.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

import dns.rdatatype

from raydns.schemas import names
from raydns.schemas.dns import Type
from raydns.schemas.errors import NameError_, ZoneFileError

from .checks import Builder
from .generate import GenerateProblem, expand, numbers
from .problems import MasterFileError, Problem, Problems
from .rdata_text import RdataProblem, read_rdata, read_ttl
from .tokens import Entry, entries
from .zone_data import ZoneData

INCLUDE_DEPTH_MAX: Final = 8
FILE_SIZE_MAX: Final = 256 << 20  # octets, each of zone file and includes

ReadInclude = Callable[[str], str]
"""The text of a file that $INCLUDE names; raises ``ZoneFileError`` where it may not or cannot be read."""

_CLASSES: Final = frozenset({"IN", "CH", "HS", "CLASS1"})
_META_TYPES: Final = frozenset({0, 41, *range(128, 256)}) - {int(Type.CAA)}  # QTYPEs and OPT (RFC 6895)


def parse(text: str, apex: bytes | None, *, origin_file: str = "", read_include: ReadInclude | None = None) -> ZoneData:
    """Reads a zone.

    Args:
        text: the master file.
        apex: the zone's name, in any case; ``None`` takes the SOA's owner.
        origin_file: the file's name, for messages.
        read_include: how $INCLUDE reads; ``None`` refuses it.

    Raises:
        MasterFileError: the file has errors; ``problems`` lists all of them, and the warnings.
    """
    problems = Problems()
    builder = Builder(names.key(apex) if apex is not None else None, problems)
    reader = _Reader(builder, problems, read_include or _no_includes)
    reader.read(text, origin_file, apex)
    data = builder.finish(origin_file)
    if problems.errors or data is None:
        raise MasterFileError(origin_file, sorted(problems.all, key=lambda p: p.severity != "error"))
    data.warnings = problems.all
    return data


def confined_includes(folder: Path) -> ReadInclude:
    """Reads includes from a folder and what is below it, and from nowhere else, symbolic links resolved."""
    root = folder.resolve()

    def read(name: str) -> str:
        path = (root / name).resolve()
        if not path.is_relative_to(root):
            raise ZoneFileError(f"$INCLUDE {name} leaves the zone's folder {root}")
        try:
            if path.stat().st_size > FILE_SIZE_MAX:
                raise ZoneFileError(f"{path} is larger than {FILE_SIZE_MAX} octets")
            return path.read_text("utf-8", "surrogateescape")
        except (OSError, ValueError) as error:
            raise ZoneFileError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error

    return read


def _no_includes(name: str) -> str:
    raise ZoneFileError(f"$INCLUDE {name}: this zone has no folder to read from")


class _EntryProblem(Exception):
    """What is wrong with which token of an entry."""

    def __init__(self, index: int, message: str, expected: str = "", code: str = "syntax") -> None:
        super().__init__(message)
        self.index = index
        self.message = message
        self.expected = expected
        self.code = code


class _Reader:
    """The state of reading: origin, last owner, TTLs, depth."""

    def __init__(self, builder: Builder, problems: Problems, read_include: ReadInclude) -> None:
        self._builder = builder
        self._problems = problems
        self._read_include = read_include
        self._depth = 0
        self._file = ""
        self._origin: bytes | None = None
        self._owner: tuple[bytes, bytes] | None = None  # as written, and key
        self._owner_is_broken = False  # told already; records that inherit it are passed over
        self._default_ttl: int | None = None
        self._last_ttl: int | None = None
        self._known_names: dict[str, bytes] = {}  # texts read relative to the present origin
        self._types: dict[str, int] = {}

    def read(self, text: str, file: str, origin: bytes | None) -> None:
        """Reads a file, or an included one, from its own origin."""
        before = self._file, self._origin, self._owner
        self._file = file
        self._set_origin(origin)
        for entry in entries(text, self._complain):
            try:
                self._entry(entry)
            except _EntryProblem as problem:
                line, column = entry.place(problem.index)
                found = entry.tokens[problem.index] if problem.index < len(entry.tokens) else ""
                self._complain(line, column, problem.message, found, problem.expected, problem.code)
            if self._problems.full:
                break
        self._file, origin_before, self._owner = before
        self._set_origin(origin_before)

    def _complain(  # noqa: PLR0917 - a problem's own fields
        self, line: int, column: int, message: str, found: str, expected: str, code: str = "syntax"
    ) -> None:
        self._problems.add(Problem("error", code, message, self._file, line, column, found[:80], expected))

    def _set_origin(self, origin: bytes | None) -> None:
        self._origin = origin
        self._known_names = {}

    def _name(self, text: str) -> bytes:
        known = self._known_names.get(text)
        if known is not None:
            return known
        if text.startswith('"'):
            text = text[1:-1]
        if self._origin is None and not text.endswith("."):
            raise NameError_(f"{text!r} is relative and there is no origin", hint="an absolute name, or $ORIGIN")
        name = names.from_text(text, self._origin)
        if len(self._known_names) < 65536:
            self._known_names[text] = name
        return name

    def _entry(self, entry: Entry) -> None:
        tokens = entry.tokens
        first = tokens[0]
        if first[0] == "$" and not entry.indented:
            self._directive(entry, first.upper())
            return
        start = 0
        if not entry.indented:
            start = 1
            try:
                owner = self._name(first)
            except NameError_ as error:
                # What follows without an owner must not go to the one before.
                self._owner = None
                self._owner_is_broken = True
                raise _EntryProblem(0, error.message, error.hint or "an owner name") from None
            self._owner = owner, owner.lower()
        self._record(entry.line, tokens, start)

    def _record(self, line: int, tokens: list[str], start: int) -> None:
        ttl, rtype, at = self._head(tokens, start)
        try:
            rdata = read_rdata(rtype, tokens[at:], self._name, self._origin or names.ROOT)
        except RdataProblem as problem:
            raise _EntryProblem(at + problem.index, problem.message, problem.expected, "rdata") from None
        if self._owner is None:
            if self._owner_is_broken:
                return
            raise _EntryProblem(0, "a record without an owner", "a name at the start of the line")
        if ttl is None:
            ttl = self._default_ttl if self._default_ttl is not None else self._last_ttl
            if ttl is None:
                ttl = int.from_bytes(rdata[-4:], "big") if rtype == Type.SOA else None
            if ttl is None:
                raise _EntryProblem(at - 1, "no TTL is known for this record", "$TTL at the head of the file", "ttl")
        self._last_ttl = ttl
        owner, key = self._owner
        self._builder.add(owner, key, rtype, ttl, rdata, self._file, line)

    def _head(self, tokens: list[str], at: int) -> tuple[int | None, int, int]:
        """TTL and class in either order, then the type; and where the data starts."""
        ttl: int | None = None
        has_class = False
        while at < len(tokens):
            token = tokens[at]
            rtype = self._types.get(token)
            if rtype is not None:
                return ttl, rtype, at + 1
            if token[0].isdecimal() and ttl is None:
                ttl = read_ttl(token)
                if ttl is None:
                    raise _EntryProblem(at, "not a TTL", "seconds up to 2147483647, or units as in 1h30m", "ttl")
            elif token.upper() in _CLASSES and not has_class:
                if token.upper() not in {"IN", "CLASS1"}:
                    raise _EntryProblem(at, "a class that is not served", "IN", "class")
                has_class = True
            else:
                self._types[token] = rtype = _read_type(token, at)
                return ttl, rtype, at + 1
            at += 1
        raise _EntryProblem(at, "the record ends early", "a type and its data")

    def _directive(self, entry: Entry, name: str) -> None:
        tokens = entry.tokens
        if name == "$ORIGIN":
            self._arguments(tokens, 1, 1, "one name")
            self._set_origin(self._name_at(tokens, 1))
        elif name == "$TTL":
            self._arguments(tokens, 1, 1, "one TTL")
            ttl = read_ttl(tokens[1])
            if ttl is None:
                raise _EntryProblem(1, "not a TTL", "seconds up to 2147483647, or units as in 1h30m", "ttl")
            self._default_ttl = ttl
        elif name == "$INCLUDE":
            self._arguments(tokens, 1, 2, "a file, and perhaps an origin")
            self._include(tokens)
        elif name == "$GENERATE":
            self._arguments(tokens, 4, 1 << 16, "a range, an owner, a type and its data")
            self._generate(entry)
        else:
            raise _EntryProblem(0, "an unknown directive", "$ORIGIN, $TTL, $INCLUDE or $GENERATE")

    def _arguments(self, tokens: list[str], least: int, most: int, expected: str) -> None:
        if not least <= len(tokens) - 1 <= most:
            raise _EntryProblem(min(len(tokens), most + 1), f"{tokens[0]} with {len(tokens) - 1} arguments", expected)

    def _name_at(self, tokens: list[str], index: int) -> bytes:
        try:
            return self._name(tokens[index])
        except NameError_ as error:
            raise _EntryProblem(index, error.message, error.hint or "a domain name") from None

    def _include(self, tokens: list[str]) -> None:
        if self._depth >= INCLUDE_DEPTH_MAX:
            raise _EntryProblem(0, f"$INCLUDE nests deeper than {INCLUDE_DEPTH_MAX}", "no file that includes itself")
        origin = self._name_at(tokens, 2) if len(tokens) > 2 else self._origin
        file = tokens[1].strip('"')
        try:
            text = self._read_include(file)
        except ZoneFileError as error:
            raise _EntryProblem(1, error.message, "a readable file in the zone's folder", "include") from None
        self._depth += 1
        self.read(text, file, origin)
        self._depth -= 1

    def _generate(self, entry: Entry) -> None:
        tokens = entry.tokens
        try:
            chosen = numbers(tokens[1])
        except GenerateProblem as problem:
            raise _EntryProblem(1, str(problem), "start-stop[/step]", "generate") from None
        before = self._owner
        for number in chosen:
            try:
                made = [expand(token, number) for token in tokens[2:]]
                owner = self._name(made[0])
            except (GenerateProblem, NameError_) as problem:
                raise _EntryProblem(2, str(problem), "", "generate") from None
            self._owner = owner, owner.lower()
            try:
                self._record(entry.line, made, 1)
            except _EntryProblem as problem:
                raise _EntryProblem(
                    problem.index + 2, f"{problem.message} (number {number})", problem.expected, problem.code
                ) from None
        self._owner = before


def _read_type(token: str, at: int) -> int:
    try:
        rtype = int(dns.rdatatype.from_text(token))
    except (dns.rdatatype.UnknownRdatatype, ValueError):
        raise _EntryProblem(
            at, "an unknown type", "a record type; one without a name is written TYPE65280 \\# LENGTH HEX", "type"
        ) from None
    if rtype in _META_TYPES:
        raise _EntryProblem(at, "a type that no record has", "a record type", "type")
    return rtype
