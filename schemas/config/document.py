"""Writes ``docs/configuration.md``: ``python -m raydns.schemas.config.document``; and makes schema and dumps."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from raydns.schemas.config import Config
from raydns.schemas.config.base import Section
from raydns.schemas.config.difference import needs_restart
from raydns.schemas.config.options import Option, options, section_of


def json_schema() -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of a configuration file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Config.model_json_schema(mode="validation"),
        "title": "raydns configuration",
    }


def dump(config: Config) -> str:
    """The whole configuration as YAML that loads again to an equal one."""
    return str(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, width=100))


def markdown() -> str:
    """The page of all options."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Configuration"
    yield ""
    yield "Generated from the models by `python -m raydns.schemas.config.document`; edit `schemas/config/` instead."
    yield ""
    yield "A file is YAML or TOML, by its suffix. `raydns config check FILE` tells every mistake at once, with line and"
    yield "hint; `raydns config schema` prints a JSON schema for editors; `raydns config show` tells every option's"
    yield "value and where it came from. Order, later wins: defaults, file, plain variables, `RAYDNS_…` variables."
    yield "Paths in a file are relative to that file; in a variable, to the working directory."
    yield ""
    yield "| variable | sets |"
    yield "| --- | --- |"
    yield "| `RAYDNS_<SECTION>__<OPTION>` | any option: `RAYDNS_SERVER__PORT=53`, `RAYDNS_LLM__ENABLED=false` |"
    yield "| `DNS_SERVER_MAX_CONCURRENT_QUERIES` | `server.max_concurrent_queries` |"
    yield "| `DNS_SERVER_ACTOR_POOL_SIZE` | `query.pool_size`; bounds that nobody gave follow it |"
    yield "| `DNS_SERVER_QUERY_TIMEOUT_SECS` | `server.query_timeout_s`, and `forward.timeout_s` within 1 to 30 |"
    yield "| `DNS_SERVER_ENABLE_CACHING` | `cache.enabled` |"
    yield "| `OPENROUTER_API_KEY` | the key itself, read by the LLM actor only; it never stands in a configuration |"
    yield ""
    yield "Options with *restart* take effect when `raydns node` starts anew; all others when they are reloaded."
    for name, field in Config.model_fields.items():
        section = section_of(field)
        if section is not None:
            yield from _section(name, section, field.description or "")


def _section(name: str, model: type[Section], meaning: str) -> Iterator[str]:
    yield ""
    yield f"## {name}"
    yield ""
    yield meaning
    yield ""
    yield from _table(options(model, (name,)))
    for option in options(model, (name,)):
        if option.item_model is not None:
            yield from _items(option.name, option.item_model)


def _items(name: str, model: type[Section]) -> Iterator[str]:
    yield ""
    yield f"### {name}[]"
    yield ""
    yield _prose(model.__doc__ or "")
    yield ""
    yield from _table(options(model), name + "[].")
    for option in options(model):
        if option.item_model is not None:
            yield from _items(f"{name}[].{option.name}", option.item_model)


def _table(rows: Iterator[Option], prefix: str = "") -> Iterator[str]:
    yield "| option | default | meaning |"
    yield "| --- | --- | --- |"
    for option in rows:
        restart = " *restart*" if not prefix and needs_restart(option.name) else ""
        yield f"| `{prefix}{option.name}` | {_default(option)} | {_prose(option.meaning)}{restart} |"


def _default(option: Option) -> str:
    if option.field.is_required():
        return "required"
    value = option.default
    if isinstance(value, tuple) and option.item_model is not None:
        return "see below" if value else "`[]`"
    if isinstance(value, tuple):
        value = list(value)
    text = json.dumps(value)
    return f"`{text}`" if len(text) <= 60 else "a text of its own"


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|")


def main(directory: Path) -> None:
    """Writes the page below ``directory`` (the repository's ``docs``)."""
    (directory / "configuration.md").write_text(markdown())


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
