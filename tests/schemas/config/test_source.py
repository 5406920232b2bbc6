"""YAML and TOML texts: values, lines, syntax errors with line and column, and files meant to hurt."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydns.schemas.config.source import read_scalar_or_list, read_toml, read_yaml
from tests.schemas.config.writing import only, refused


def test_lines_of_every_value() -> None:
    """Each option and list item knows its line."""
    document = read_yaml("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n", "f")
    assert document.tree == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert document.lines[("a", "b")] == 2
    assert document.lines[("a", "c", 1, "d")] == 5
    assert document.line_of(("a", "c", 1, "unknown")) == 5
    assert document.line_of(("z",)) is None


def test_scalars_without_surprises() -> None:
    """Words of YAML 1.1 for booleans, base-sixty numbers, octals and dates stay text."""
    document = read_yaml("[no, off, y, 12:30, 010, 2020-01-01, 1e3, 'true', true, 0x10, 1_000, 1.5, ~, '']", "f")
    assert document.problems[0].message == "the file holds a list"
    assert read_scalar_or_list("[no, off, y, 12:30, 010, 2020-01-01, 1e3, 'true', true, 0x10, 1_000, 1.5, ~, '']") == [
        "no", "off", "y", "12:30", "010", "2020-01-01", "1e3", "true", True, 16, 1000, 1.5, None, "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message", "hint", "line"),
    [
        ("server:\n  listen: [[::1]:53]\n", "not YAML (line 2", "put an IPv6 address with a port in quotes", 2),
        ("server:\n  listen:\n  - [::1]:53\n", "not YAML (line 3", "put an IPv6 address with a port in quotes", 3),
        ("server:\n\tport: 1\n", "not YAML (line 2, column 1)", "no tabs", 2),
        ("server: {port: 1\n", "not YAML (line 2", "", 2),
        ("server:\n  port: 1\n bad: 2\n", "not YAML (line 3", "indented by spaces", 3),
        ("server: @x\n", "not YAML (line 1", "special character in quotes", 1),
        ("a: 1\n---\nb: 2\n", "not YAML (line 2, column 1)", "", 2),
        ("a: !!python/object/apply:os.system [x]\n", "", "", 1),
        ("a: *nobody\n", "not YAML (line 1, column 4)", "", 1),
        ("- a\n- b\n", "the file holds a list", "sections such as `server:`", 1),
        ("just words\n", "the file holds a single value", "", 1),
        ("a: \x01\n", "not text", "UTF-8", None),
        ("server: {}\nserver: {}\n", "stands twice; first on line 1", "keep one", 2),
        ("<<: {a: 1}\n", "merge keys are not read", "write the options out", 1),
        ("? [a, b]\n: 1\n", "a key has to be a word", "", 1),
        ("a: " + "[" * 500 + "]" * 500, "nested deeper than 32 levels", "", None),
        ("&a a: &b [*b]\n", "nested deeper", "", None),
        ("server: {port: " + "9" * 5000 + "}", "", "", 1),
        ("x: " + "[" * 20000, "", "", None),
    ],
)
def test_yaml_that_cannot_be_read(tmp_path: Path, text: str, message: str, hint: str, line: int | None) -> None:
    """Whatever stands in a file, the answer is a problem with its place, never another exception."""
    problem = refused(tmp_path, text).problems[0]
    assert message in problem.message
    assert hint in problem.hint
    if line is not None:
        assert problem.line == line


def test_alias_bomb(tmp_path: Path) -> None:
    """Nine levels of nine aliases are four hundred million values; the walk stops."""
    text = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n"
    for i in range(1, 9):
        text += f"a{i}: &a{i} [" + ",".join([f"*a{i - 1}"] * 9) + "]\n"
    assert "more than 200000 values" in refused(tmp_path, text).message


@pytest.mark.parametrize(
    ("text", "line"),
    [("[server\nport = 1\n", 1), ("server = {\n", 2), ("a = 1\na = 2\n", 2), ("[server]\nport = x\n", 2)],
)
def test_toml_that_cannot_be_read(tmp_path: Path, text: str, line: int) -> None:
    """TOML's own message comes with line and column."""
    problem = only(refused(tmp_path, text, name="c.toml"))
    assert problem.message.startswith("not TOML:")
    assert problem.line is None or abs(problem.line - line) <= 1


def test_toml_problem_has_its_line(tmp_path: Path) -> None:
    """A wrong value in TOML is found by a scan, also in the second of two tables."""
    text = '[[zones.files]]\nname = "a."\nfile = "a"\n[[zones.files]]\nname = "b."\nfile = 5\n'
    problem = only(refused(tmp_path, text, name="c.toml"))
    assert (problem.path, problem.line) == ("zones.files[1].file", 6)


def test_not_utf8(tmp_path: Path) -> None:
    """Latin-1 is told with the line of the first octet that is not UTF-8."""
    from raydns.schemas.config.load import load
    from raydns.schemas.config.problems import ConfigProblems

    (tmp_path / "c.yaml").write_bytes(b"a: 1\nb: \xe4\n")
    with pytest.raises(ConfigProblems, match=r"c.yaml:2: is not UTF-8 text \(save it as UTF-8\)"):
        load(tmp_path / "c.yaml", {})


def test_byte_order_mark(tmp_path: Path) -> None:
    """An editor's byte order mark is no part of the first key."""
    from raydns.schemas.config.load import load

    (tmp_path / "c.yaml").write_bytes(b"\xef\xbb\xbfserver: {port: 1}\n")
    assert load(tmp_path / "c.yaml", {}).config.server.port == 1


@given(st.text(max_size=200))
def test_no_text_raises(text: str) -> None:
    """Property: both readers answer every text with a document."""
    read_yaml(text, "f")
    read_toml(text, "f")


@given(st.text(alphabet="a: \n-[]{}&*!|>'\"#,?x0", max_size=80))
def test_no_yaml_like_text_raises(text: str) -> None:
    """Property: the same for texts made of YAML's own characters."""
    read_yaml(text, "f")
