"""Logs: every line is one line, every line is JSON, and nothing that is logged can raise."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydns.nodes import logs
from raydns.schemas.config.telemetry import LogConfig
from raydns.schemas.errors import StateError

# Two busy cores: how long one example takes proves nothing.
settings.register_profile("raydns", deadline=None)
settings.load_profile("raydns")

log = logging.getLogger("raydns.test")


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    """Leaves the root logger as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def stream(style: str = "json", level: str = "info") -> io.StringIO:
    """Logs of this process, caught."""
    caught = io.StringIO()
    logs.setup(LogConfig.model_validate({"format": style, "level": level}), "ingress", caught)
    return caught


def line(record: logging.LogRecord, formatter: logging.Formatter | None = None) -> dict[str, object]:
    """One formatted record, parsed."""
    text = (formatter or logs.JsonFormatter("ingress")).format(record)
    assert "\n" not in text
    found: dict[str, object] = json.loads(text)
    return found


def make(message: object = "event", *args: object, **extra: object) -> logging.LogRecord:
    """A record with extras."""
    record = logging.LogRecord("raydns.x", logging.INFO, "x.py", 1, message, args, None)
    vars(record).update(extra)
    return record


def test_json_line() -> None:
    """An event has time, level, logger, component, event, its key-values, and ids in hexadecimal."""
    caught = stream()
    log.info("stream_up", extra={"endpoint": "cache:0.g1", "count": 3, "share": 0.5, "trace_id": bytes(range(16))})
    found = json.loads(caught.getvalue())
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "info",
        "logger": "raydns.test",
        "component": "ingress",
        "event": "stream_up",
        "endpoint": "cache:0.g1",
        "count": 3,
        "share": 0.5,
        "trace_id": "000102030405060708090a0b0c0d0e0f",
    }


def test_level_and_setup_twice() -> None:
    """The level holds and can change while running; a second setup replaces the first instead of doubling lines."""
    first = stream()
    second = stream(level="warning")
    log.info("quiet")
    log.warning("loud")
    logs.set_level(LogConfig(level="debug"))
    log.debug("now")
    assert first.getvalue() == ""
    assert [json.loads(row)["event"] for row in second.getvalue().splitlines()] == ["loud", "now"]


def test_exceptions() -> None:
    """A traceback is one field of one line; an error of ours adds its code."""
    caught = stream()
    try:
        raise StateError("damaged", where="/x")
    except StateError:
        log.exception("load_failed")
    found = json.loads(caught.getvalue())
    assert "Traceback" in found["error"]
    assert "/x: damaged" in found["error"]
    assert found["error_code"] == "state"


class Odd:
    """Cannot be shown."""

    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


CIRCLE: list[object] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    "value",
    [
        Odd(), CIRCLE, {1: Odd()}, {Odd(): 1}, {("a", 1): 2}, {None: 1}, b"\x00\xff\x1b[2J", "\ud800", {"\udfff": 1},
        1 << 70, 1 << 100_000, float("nan"), float("inf"), object(), {1, 2}, iter([1]), Path("/x"), ValueError("x"),
        "x" * 100_000, memoryview(b"abc"), StateError("x"), type, None, True, lambda: 1,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_odd_extras_never_raise(value: object) -> None:
    """Whatever is logged gives one line of JSON and one of text, of bounded length."""
    record = make("event", odd=value, good="yes")
    found = line(record)
    assert found["event"] == "event"
    assert found["good"] == "yes"
    assert len(json.dumps(found)) < 3 * logs.TEXT_MAX
    assert "\n" not in logs.TextFormatter("x").format(record)


def test_odd_messages_never_raise() -> None:
    """Arguments that do not fit, messages that are objects, and odd names and times give a line."""
    assert "%d" in str(line(make("%d items", "three"))["event"])
    assert "%s" in str(line(make("%s", 1, 2))["event"])
    assert "raises" in str(line(make(Odd()))["event"])
    record = make("x")
    record.created = float("nan")
    assert line(record)["time"] == "1970-01-01T00:00:00.000000Z"


def test_extras_cannot_pose_as_our_fields() -> None:
    """An extra called like a field of ours gets another name instead of replacing it."""
    found = line(make("real", event="forged", level="forged", time="forged"))
    assert found["event"] == "real"
    assert found["level"] == "info"
    assert found["extra_event"] == found["extra_level"] == found["extra_time"] == "forged"


@given(st.text(), st.text())
def test_no_control_character_survives(message: str, value: str) -> None:
    """Neither format lets out a control character, a line separator, or a change of writing direction."""
    record = make(message.replace("%", ""), value=value)
    for formatter in (logs.JsonFormatter("x"), logs.TextFormatter("x")):
        text = formatter.format(record)
        assert not logs._CONTROL.search(text)
        text.encode()
    found = line(record)
    if not any(0xD800 <= ord(c) <= 0xDFFF for c in value):
        assert found["value"] == value  # escaped, not lost


def test_text_line() -> None:
    """The terminal's line has clock, level, component, event and quoted key-values; colours only on a terminal."""
    record = make("stream_down", endpoint="cache:0.g1", problem='said "no" \x1b[31m', empty="")
    text = logs.TextFormatter("ingress").format(record)
    assert text[12:] == (
        ' info    ingress stream_down endpoint=cache:0.g1 problem="said \\"no\\" \\\\u001b[31m" empty=""'
    )
    coloured = logs.TextFormatter("ingress", colours=True).format(record)
    assert coloured.count("\x1b[") == 2


def test_text_traceback_is_indented() -> None:
    """A traceback stands below its line, indented, and cannot pass for a line of its own."""
    caught = stream("text")
    try:
        raise ValueError("first\n12:00:00.000 info forged")
    except ValueError:
        log.exception("failed")
    first, *rest = caught.getvalue().splitlines()
    assert "failed" in first
    assert rest
    assert all(row.startswith("    ") for row in rest)


def test_no_extra_in_our_sources_is_forbidden() -> None:
    """No call in our sources passes an ``extra`` key that ``logging`` refuses (it raises KeyError in the caller)."""
    root = Path(logs.__file__).resolve().parent.parent
    seen = 0
    for folder in ("schemas", "nodes", "actors", "cluster"):
        for path in (root / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
                    keys = {key.value for key in node.value.keys if isinstance(key, ast.Constant)}
                    seen += 1
                    assert not keys & logs.RECORD_KEYS, f"{path}:{node.value.lineno}"
    assert seen > 5
