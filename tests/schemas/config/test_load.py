"""``load``: file over defaults, environment over file, where each option came from, and what a path means."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raydns.schemas.config import Config
from raydns.schemas.config.load import load
from raydns.schemas.config.problems import ConfigProblems
from tests.schemas.config.writing import loaded, only, refused


def test_defaults_alone_are_a_usable_configuration() -> None:
    """Without file and environment everything has its default, and the state directory is absolute."""
    result = load(None, {})
    assert result.source is None
    assert result.config.server.port == 1053
    assert result.config.server.state_dir == str(Path("~/.raydns").expanduser())
    assert set(result.provenance.values()) == {"default"}
    assert result.warnings == []


@pytest.mark.parametrize("name", ["c.yaml", "c.yml", "c.YAML"])
def test_yaml_file(tmp_path: Path, name: str) -> None:
    """A YAML file sets what it names, and its lines are the provenance."""
    result = loaded(tmp_path, "server:\n  port: 5300\n  listen: ['127.0.0.1', '[::1]:54']\n", name=name)
    assert result.config.server.port == 5300
    assert result.config.server.listen == ("127.0.0.1", "[::1]:54")
    assert result.provenance["server.port"] == f"{tmp_path / name}:2"
    assert result.provenance["cache.enabled"] == "default"


def test_toml_file(tmp_path: Path) -> None:
    """A TOML file means the same, with lines for plain keys and tables."""
    text = 'version = 1\n[server]\nport = 5300\n[[zones.files]]\nname = "a.example"\nfile = "/z/a"\n'
    result = loaded(tmp_path, text, name="c.toml")
    assert result.config.server.port == 5300
    assert result.config.zones.files[0].name == "a.example."
    assert result.provenance["server.port"] == f"{tmp_path}/c.toml:3"
    assert result.provenance["zones.files"] == f"{tmp_path}/c.toml:4"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "server:\n", "server:\ncache:\n"])
def test_empty_files_and_sections_are_the_defaults(tmp_path: Path, text: str) -> None:
    """A section whose options are all commented out is like one that is not there."""
    assert loaded(tmp_path, text).config == load(None, {}).config


def test_off_is_a_word(tmp_path: Path) -> None:
    """YAML 1.1 would read ``off`` as false; here a mode may be called so, and a boolean still takes it."""
    result = loaded(tmp_path, "access:\n  rate:\n    mode: off\nllm:\n  catch_all: off\ncache:\n  enabled: off\n")
    assert result.config.access.rate.mode == "off"
    assert result.config.llm.catch_all == "off"
    assert result.config.cache.enabled is False


def test_paths_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Zone files and the state directory of a file do not depend on the working directory; a variable's does."""
    monkeypatch.chdir("/")
    text = "server: {state_dir: ../state}\nzones: {files: [{name: a.example, file: zones/a}]}\n"
    (tmp_path / "etc").mkdir()
    result = loaded(tmp_path / "etc", text)
    assert result.config.server.state_dir == str(tmp_path / "state")
    assert result.config.zones.files[0].file == str(tmp_path / "etc/zones/a")
    over = loaded(tmp_path / "etc", text, {"RAYDNS_SERVER__STATE_DIR": "var/state"})
    assert over.config.server.state_dir == "/var/state"


def test_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``~`` works in the file, in a variable and in the default."""
    monkeypatch.setenv("HOME", "/home/somebody")
    assert loaded(tmp_path, "server: {state_dir: ~/dns}\n").config.server.state_dir == "/home/somebody/dns"
    variable = {"RAYDNS_SERVER__STATE_DIR": "~/here"}
    assert load(None, variable).config.server.state_dir == "/home/somebody/here"
    assert load(None, {}).config.server.state_dir == "/home/somebody/.raydns"


def test_zone_file_that_is_missing_is_a_warning(tmp_path: Path) -> None:
    """A machine has to boot from what it last knew, even if a master file is gone."""
    result = loaded(tmp_path, "zones: {files: [{name: a.example, file: nowhere}]}\n")
    assert f"zones.files[0].file: {tmp_path}/nowhere is not there" in result.warnings[0]


def test_pool_bounds_follow_a_size_that_was_asked_for(tmp_path: Path) -> None:
    """Who asks for sixteen actors and says nothing of bounds gets sixteen; bounds that were given hold."""
    assert loaded(tmp_path, "query: {pool_size: 16}").config.query.pool_max == 16
    assert loaded(tmp_path, "", {"DNS_SERVER_ACTOR_POOL_SIZE": "16"}).config.query.pool_max == 16
    problem = only(refused(tmp_path, "query: {pool_max: 4}", {"DNS_SERVER_ACTOR_POOL_SIZE": "16"}))
    assert "pool_size 16 is not between pool_min 1 and pool_max 4" in problem.message


def test_version_that_is_too_new(tmp_path: Path) -> None:
    """A file of a later format is refused in words, not by its unknown options."""
    problem = only(refused(tmp_path, "version: 2\n"))
    assert (problem.path, problem.value, problem.line) == ("version", "2", 1)
    assert "newer format" in problem.message
    assert "upgrade raydns" in problem.hint


@pytest.mark.parametrize("version", ["0", "-1", "'1'", "true", "1.5", "[1]"])
def test_version_that_is_none(tmp_path: Path, version: str) -> None:
    """Anything but a positive whole number is no format."""
    assert only(refused(tmp_path, f"version: {version}\n")).message == "is not a format"


def test_missing_file(tmp_path: Path) -> None:
    """The message names the file and the option that names it."""
    with pytest.raises(ConfigProblems) as caught:
        load(tmp_path / "no.yaml", {})
    assert str(caught.value) == f"{tmp_path}/no.yaml: no such file (name another with --config, or start without one)"
    assert caught.value.exit_code == 3


def test_directory(tmp_path: Path) -> None:
    """A directory is told as such, with what was probably meant."""
    (tmp_path / "d.yaml").mkdir()
    with pytest.raises(ConfigProblems, match=r"is a directory \(name a file in it, such as .*/d.yaml/raydns.yaml\)"):
        load(tmp_path / "d.yaml", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    """A file without permission is told with the user that lacks it."""
    file = tmp_path / "c.yaml"
    file.write_text("")
    file.chmod(0)
    with pytest.raises(ConfigProblems, match="cannot be read: Permission denied"):
        load(file, {})


def test_unreadable_file_for_root_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same message where the test runs as root, to whom everything is readable."""
    (tmp_path / "c.yaml").write_text("")

    def deny(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", deny)
    with pytest.raises(ConfigProblems, match=r"cannot be read: Permission denied \(make it readable for user"):
        load(tmp_path / "c.yaml", {})


def test_not_a_regular_file(tmp_path: Path) -> None:
    """A pipe is refused instead of being waited for."""
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(ConfigProblems, match="is not a regular file"):
        load(tmp_path / "c.yaml", {})


@pytest.mark.parametrize("name", ["c.json", "c.conf", "c"])
def test_unknown_suffix(tmp_path: Path, name: str) -> None:
    """The suffix decides the language, so an unknown one is told."""
    error = refused(tmp_path, "", name=name)
    assert "is not a known suffix (use .yaml, .yml or .toml)" in str(error)


def test_huge_file(tmp_path: Path) -> None:
    """A file of another kind does not fill the memory."""
    assert "octets; at most" in refused(tmp_path, "#" * (4 * 1024 * 1024 + 1)).message


def test_nothing_is_changed_in_the_models(tmp_path: Path) -> None:
    """Loading never touches the shared defaults."""
    before = Config().model_dump()
    loaded(tmp_path, "cluster: {labels: {region: eu}}\nquery: {pool_size: 20}\n", {"RAYDNS_CLUSTER__LABELS__RACK": "1"})
    assert Config().model_dump() == before
