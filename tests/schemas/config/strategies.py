"""Any configuration that the models accept, for property tests: made from the models' own types and bounds."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import annotated_types
from hypothesis import strategies as st
from pydantic.fields import FieldInfo

from raydns.schemas.config import Config
from raydns.schemas.config.base import Section

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
_NAME = st.lists(_LABEL, min_size=1, max_size=4).map(lambda labels: ".".join(labels) + ".")
_ADDRESS = st.one_of(st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map(str))
_SOCKET = st.builds(
    lambda host, port: f"[{host}]:{port}" if ":" in host else f"{host}:{port}", _ADDRESS, st.integers(1, 65535)
)

_SPECIAL: dict[str, st.SearchStrategy[Any]] = {
    "version": st.just(1),
    "server.listen": st.lists(st.one_of(_ADDRESS, _SOCKET), min_size=1, max_size=3, unique=True).map(tuple),
    "server.state_dir": _LABEL.map(lambda text: f"/var/{text}"),
    "web.listen": _SOCKET,
    "cluster.name": _LABEL.map(lambda text: text[:8]),
    "cluster.head": st.just(True),
    "forward.bootstrap": st.lists(_SOCKET, max_size=2).map(tuple),
    "forward.port_min": st.integers(1024, 20_000),
    "forward.port_max": st.integers(20_000, 65_535),
    "forward.rules.suffix": _NAME,
    "forward.rules.upstreams.address": st.one_of(_ADDRESS, _SOCKET),
    "forward.breaker.open_s": st.floats(0.5, 5.0),
    "forward.breaker.open_max_s": st.floats(5.0, 100.0),
    "cache.ttl_min_s": st.integers(0, 10),
    "cache.ttl_max_s": st.integers(10, 604_800),
    "cache.failure_ttl_s": st.floats(1.0, 10.0),
    "cache.failure_ttl_max_s": st.floats(10.0, 300.0),
    "zones.files.name": _NAME,
    "zones.files.file": _LABEL.map(lambda text: f"/zones/{text}"),
    "llm.zones": st.lists(_NAME, max_size=3).map(tuple),
    "llm.strip_suffixes": st.lists(_NAME, max_size=3).map(tuple),
    "llm.api_key_env": st.sampled_from(["", "OPENROUTER_API_KEY", "MY_KEY"]),
    "llm.api_key_file": st.just(""),
    "llm.embedded.model_path": st.just(""),
    "query.pool_min": st.integers(1, 4),
    "query.pool_size": st.integers(4, 50),
    "query.pool_max": st.integers(50, 1000),
    "access.classes.name": st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True),
    "access.classes.prefixes": st.lists(st.integers(0, 255).map(lambda n: f"10.{n}.0.0/16"), max_size=3).map(tuple),
}
_UNIQUE = {"forward.rules": "suffix", "zones.files": "name", "access.classes": "name"}


def configs() -> st.SearchStrategy[Config]:
    """Configurations that pass the models and the checks between options."""
    return _model(Config, "").filter(_one_class_a_prefix)


def _one_class_a_prefix(config: Config) -> bool:
    prefixes = [prefix for item in config.access.classes for prefix in dict.fromkeys(item.prefixes)]
    return len(prefixes) == len(set(prefixes))


def _model(model: type[Section], prefix: str) -> st.SearchStrategy[Any]:
    return st.builds(model, **{name: _field(field, prefix + name) for name, field in model.model_fields.items()})


def _field(field: FieldInfo, path: str) -> st.SearchStrategy[Any]:
    if path in _SPECIAL:
        return _SPECIAL[path]
    annotation = field.annotation
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return _model(annotation, f"{path}.")
    if get_origin(annotation) is tuple:
        item = get_args(annotation)[0]
        minimum = next((m.min_length for m in field.metadata if isinstance(m, annotated_types.MinLen)), 0)
        if isinstance(item, type) and issubclass(item, Section):
            key = _UNIQUE.get(path)
            unique = (lambda one: getattr(one, key)) if key else None
            items = st.lists(_model(item, f"{path}."), min_size=minimum, max_size=2, unique_by=unique)
        else:
            items = st.lists(_scalar(item, []), min_size=minimum, max_size=3)
        return items.map(tuple)
    return _scalar(annotation, field.metadata)


def _scalar(kind: Any, metadata: list[Any]) -> st.SearchStrategy[Any]:
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if kind is bool:
        return st.booleans()
    if kind is str:
        return _TEXT
    if get_origin(kind) is dict:
        return st.dictionaries(_TEXT, _TEXT, max_size=3)
    low, high = _bounds(metadata)
    if kind is int:
        return st.integers(int(low), int(high))
    assert kind is float, kind
    return st.floats(low + 0.001, high)


def _bounds(metadata: list[Any]) -> tuple[float, float]:
    low, high = 0.0, 1_000_000_000.0
    for item in metadata:
        low = max(low, *(float(v) for v in (getattr(item, "ge", None), getattr(item, "gt", None)) if v is not None), 0)
        if getattr(item, "le", None) is not None:
            high = float(item.le)
    return low, high
