"""The tree of options as data: every option with its path, type and meaning, and which one a wrong name meant.

Read from the models themselves, so that messages, environment, documentation and provenance never disagree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import Any, get_args, get_origin

from pydantic.fields import FieldInfo

from raydns.schemas.config import Config
from raydns.schemas.config.base import Section
from raydns.schemas.config.problems import path_text


@dataclass(frozen=True, slots=True)
class Option:
    """One option: a leaf of the tree; lists and tables of free keys are leaves too."""

    path: tuple[str, ...]
    field: FieldInfo

    @property
    def name(self) -> str:
        """``server.port``."""
        return ".".join(self.path)

    @property
    def meaning(self) -> str:
        """The docstring under the field."""
        return self.field.description or ""

    @property
    def is_list(self) -> bool:
        """Whether it takes several values."""
        return get_origin(self.field.annotation) is tuple

    @property
    def default(self) -> Any:
        """Its default value."""
        return self.field.get_default(call_default_factory=True)

    @property
    def item_model(self) -> type[Section] | None:
        """The model of its items, where it is a list of groups."""
        return _model_of(self.field.annotation)


def options(model: type[Section] = Config, prefix: tuple[str, ...] = ()) -> Iterator[Option]:
    """Every option below ``model``, in the order in which the files declare them."""
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        section = section_of(field)
        if section is None:
            yield Option(path, field)
        else:
            yield from options(section, path)


def section_of(field: FieldInfo) -> type[Section] | None:
    """The model of a field that is a section itself, ``None`` for an option."""
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None


@cache
def by_path() -> dict[tuple[str, ...], Option]:
    """All options of the configuration by their path."""
    return {option.path: option for option in options()}


def flatten(config: Config) -> dict[str, Any]:
    """The value of every option by its dotted name."""
    values: dict[str, Any] = {}
    for option in by_path().values():
        value: Any = config
        for part in option.path:
            value = getattr(value, part)
        values[option.name] = value
    return values


def model_at(path: Sequence[str | int]) -> type[Section] | None:
    """The group of options at a path of keys and list indices, ``None`` where there is none."""
    model: type[Section] | None = Config
    for part in path:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part) if model else None
        model = _model_of(field.annotation) if field else None
    return model


def field_at(path: Sequence[str | int]) -> FieldInfo | None:
    """The field that a path leads to; list indices at its end belong to the list."""
    names = list(path)
    while names and isinstance(names[-1], int):
        names.pop()
    model = model_at(names[:-1]) if names else None
    return model.model_fields.get(str(names[-1])) if model else None


def suggest(path: Sequence[str | int]) -> str:
    """What somebody who wrote the unknown option at ``path`` may have meant."""
    name, parent = str(path[-1]), model_at(path[:-1])
    known = list(parent.model_fields) if parent else []
    hints: list[str] = []
    if close := get_close_matches(name.replace("-", "_").lower(), known, n=1, cutoff=0.6):
        hints.append(f"did you mean {path_text((*path[:-1], close[0]))}?")
    if places := _places_of(name, path):
        hints.append(f"{name} is an option of {', '.join(places)}")
    elif not close and (elsewhere := get_close_matches(name, _all_names(), n=1, cutoff=0.8)):
        hints.append(f"did you mean {', '.join(_paths_of(elsewhere[0]))}?")
    if not hints and known:
        hints.append(f"known here: {', '.join(known)}")
    return "; ".join(hints)


def _places_of(name: str, path: Sequence[str | int]) -> list[str]:
    here = ".".join(str(part) for part in path[:-1] if not isinstance(part, int))
    return [place or "the top level" for place in sorted(_index().get(name, ())) if place != here]


def _paths_of(name: str) -> list[str]:
    return [f"{place}.{name}" if place else name for place in sorted(_index()[name])]


def _all_names() -> list[str]:
    return list(_index())


@cache
def _index() -> dict[str, frozenset[str]]:
    """Where each name of an option or section is legal."""
    found: dict[str, set[str]] = {}
    todo: list[tuple[type[Section], str]] = [(Config, "")]
    while todo:
        model, place = todo.pop()
        for name, field in model.model_fields.items():
            found.setdefault(name, set()).add(place)
            inner = _model_of(field.annotation)
            if inner is not None:
                todo.append((inner, f"{place}.{name}" if place else name))
    return {name: frozenset(places) for name, places in found.items()}


def _model_of(annotation: Any) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in get_args(annotation):
        if isinstance(inner, type) and issubclass(inner, Section):
            return inner
    return None
