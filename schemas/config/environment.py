"""Options from environment variables: ``RAYDNS_SERVER__PORT=53`` and a few plain names that other software uses.

A variable belongs to us if its name begins with ``RAYDNS_`` and holds a double underscore; then it has to name an
option. Others with that beginning are not options (Kubernetes sets ``RAYDNS_PORT`` for a service called raydns), and
only a misspelt one is worth a warning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from raydns.schemas.config.options import Option, by_path, suggest
from raydns.schemas.config.problems import Problem, path_text, value_text
from raydns.schemas.config.source import read_scalar_or_list

PREFIX: Final = "RAYDNS_"
OWN: Final = frozenset({"RAYDNS_CONFIG", "RAYDNS_ENGINE", "RAYDNS_DEBUG", "RAYDNS_JSON"})
"""Variables of ours that are no options: the path of the file, and switches of commands and tests."""

Path = tuple[str, ...]


@dataclass(slots=True)
class Overrides:
    """What the environment says."""

    values: dict[Path, Any] = field(default_factory=dict)
    """By option; text unless it was written as a list or a table."""
    names: dict[Path, str] = field(default_factory=dict)
    """The variable that each value came from."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def set(self, path: Path, value: Any, name: str) -> None:
        """Takes a value; a later one wins."""
        self.values[path] = value
        self.names[path] = name

    def add(self, name: str, path: Path, value: str, message: str, hint: str = "") -> None:
        """Notes a problem of one variable."""
        self.problems.append(
            Problem(path_text(path), value_text(path, value), message, hint, None, f"environment {name}")
        )


def read(environ: Mapping[str, str]) -> Overrides:
    """All options that the environment sets; plain names first, so that ``RAYDNS_…`` wins over them."""
    found = Overrides()
    for name, take in PLAIN.items():
        if environ.get(name, "").strip():
            take(found, name, environ[name].strip())
    for name in sorted(environ):
        if name.startswith(PREFIX):
            _take_own(found, name, environ[name])
    return found


def _take_own(found: Overrides, name: str, text: str) -> None:
    path: Path = tuple(name[len(PREFIX) :].lower().split("__"))
    option = by_path().get(path)
    if option is not None:
        if "__" in name or name not in OWN:
            _take_option(found, name, option, text)
    elif "__" in name:
        at = _labels_option(path)
        if at is not None:
            found.set(at.path, {**found.values.get(at.path, {}), path[-1]: text}, name)
            return
        found.add(name, path, text, "unknown option", _variable_hint(path))
    elif name not in OWN and (close := get_close_matches(name, sorted(OWN), n=1, cutoff=0.85)):
        found.warnings.append(f"{name} is not read; did you mean {close[0]}?")


def _labels_option(path: Path) -> Option | None:
    """The table of free keys that the path ends in: ``RAYDNS_CLUSTER__LABELS__REGION``."""
    option = by_path().get(path[:-1])
    return option if option is not None and isinstance(option.default, dict) else None


def _take_option(found: Overrides, name: str, option: Option, text: str) -> None:
    try:
        found.set(option.path, parse(option, text), name)
    except ValueError as error:
        hint = "write a list as [a, b], or its items with commas between them" if option.is_list else ""
        found.add(name, option.path, text, str(error), hint)


def parse(option: Option, text: str) -> Any:
    """The value of a variable: lists and tables as YAML, or items between commas; all else as its text.

    Text is enough for numbers and booleans, since the models read them from it; and a name that looks like a
    number stays a name.
    """
    stripped = text.strip()
    if option.is_list:
        if stripped.startswith("[") and not ("]:" in stripped and not stripped.endswith("]")):  # no [::1]:53
            return read_scalar_or_list(stripped)
        if option.item_model is not None and stripped:
            raise ValueError("is not a list")
        return [item.strip() for item in stripped.split(",") if item.strip()]
    if isinstance(option.default, dict):
        return read_scalar_or_list(stripped or "{}")
    if isinstance(option.default, str):
        return text
    return stripped


def _variable_hint(path: Path) -> str:
    return re.sub(r"(did you mean )([a-z_.]+)", lambda found: found[1] + variable(found[2]), suggest(path))


def variable(option: str) -> str:
    """The variable of an option: ``server.port`` → ``RAYDNS_SERVER__PORT``."""
    return PREFIX + option.upper().replace(".", "__")


def _pool_size(found: Overrides, name: str, text: str) -> None:
    found.set(("query", "pool_size"), text, name)


def _concurrent(found: Overrides, name: str, text: str) -> None:
    found.set(("server", "max_concurrent_queries"), text, name)


def _timeout(found: Overrides, name: str, text: str) -> None:
    found.set(("server", "query_timeout_s"), text, name)
    try:
        seconds = float(text)
    except ValueError:
        return  # told once, for server.query_timeout_s
    # One upstream exchange needs a second, and forward.timeout_s ends at thirty; the client's own time is exact.
    found.set(("forward", "timeout_s"), min(max(seconds, 1.0), 30.0), name)


def _caching(found: Overrides, name: str, text: str) -> None:
    found.set(("cache", "enabled"), text, name)


PLAIN: Final[dict[str, Callable[[Overrides, str, str], None]]] = {
    "DNS_SERVER_MAX_CONCURRENT_QUERIES": _concurrent,
    "DNS_SERVER_ACTOR_POOL_SIZE": _pool_size,
    "DNS_SERVER_QUERY_TIMEOUT_SECS": _timeout,
    "DNS_SERVER_ENABLE_CACHING": _caching,
}
"""Plain names; ``OPENROUTER_API_KEY`` is read by the LLM actor alone and never becomes an option's value."""
