"""Dump, schema, difference and the generated page."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings

from raydns.schemas.config import Config
from raydns.schemas.config.document import dump, json_schema, markdown
from raydns.schemas.config.load import RESTART_ONLY, diff, load, needs_restart
from raydns.schemas.config.options import by_path
from tests.schemas.config.strategies import configs

ROOT = Path(__file__).parents[3]


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(configs())
def test_dumped_configuration_loads_equal(config: Config) -> None:
    """Property: any configuration, written as YAML and read again, is the same, and its schema accepts it."""
    with tempfile.TemporaryDirectory(prefix="rd-") as directory:
        file = Path(directory) / "c.yaml"
        file.write_text(dump(config))
        assert load(file, {}).config == config
    jsonschema.validate(config.model_dump(mode="json"), json_schema())


def test_schema_is_a_schema() -> None:
    """The schema is valid itself, describes every section, and refuses unknown options."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert set(schema["properties"]) == set(Config.model_fields)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"server": {"prot": 1}}, schema)
    assert "Port where" in json.dumps(schema)


def test_every_option_says_what_it_means() -> None:
    """An option without a docstring would be an empty row of the page."""
    assert [option.name for option in by_path().values() if not option.meaning] == []


def test_page_is_up_to_date() -> None:
    """``docs/configuration.md`` is what the models say; ``python -m raydns.schemas.config.document`` writes it."""
    assert (ROOT / "docs/configuration.md").read_text() == markdown()


def test_diff_names_what_changed() -> None:
    """Old and new value of each option, and whether it needs a restart."""
    old = Config()
    new = load(None, {"RAYDNS_SERVER__PORT": "53", "RAYDNS_CACHE__ENABLED": "false"}).config
    new = new.model_copy(update={"server": new.server.model_copy(update={"state_dir": old.server.state_dir})})
    assert diff(old, new) == [("server.port", 1053, 53), ("cache.enabled", True, False)]
    assert [needs_restart(name) for name, _, _ in diff(old, new)] == [True, False]
    assert diff(old, Config()) == []


def test_restart_only_names_exist() -> None:
    """Each entry is an option or a section, so that a renamed option cannot slip out of the set."""
    known = {".".join(path[:end]) for path in by_path() for end in range(1, len(path) + 1)}
    assert known >= RESTART_ONLY
    assert needs_restart("cluster.ray_port")
    assert not needs_restart("server.query_timeout_s")
