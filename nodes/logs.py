"""Logs: one JSON object a line for machines, one readable line for terminals; both to the standard error.

An event is a name (``log.info("stream_up", extra={"endpoint": …})``) and its key-values are the ``extra``. Rules:
nothing that is logged can raise, break out of its line, or move a terminal's cursor, whatever a stranger put into
a name or a message.
"""

from __future__ import annotations

import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import msgspec

from raydns.schemas.config.telemetry import LogConfig
from raydns.schemas.errors import RaydnsError

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
TEXT_MAX: Final = 16_384  # of one value; a packet dump must not fill a disk
TRUNCATED: Final = "… (cut)"

# What a LogRecord has by itself; everything else on it came as ``extra``.
RECORD_KEYS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_OWN_KEYS: Final = frozenset({"time", "level", "logger", "component", "event", "error", "stack"})
_HEXADECIMAL: Final = frozenset({"trace_id", "span_id"})
# C0, DEL and C1 controls, line separators, and what turns the direction of writing.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
# Third parties whose information is not ours.
_QUIET: Final = ("asyncio", "aiohttp.access", "urllib3", "opentelemetry")


def setup(config: LogConfig, component: str, stream: TextIO | None = None) -> logging.Handler:
    """Sends all logs of this process to the standard error as the configuration says; may be said again.

    Args:
        config: section ``telemetry.log``.
        component: ``node``, ``ingress``, an actor's name.
        stream: where to instead of the standard error.
    """
    target = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(target)
    formatter: logging.Formatter
    if config.format == "json":
        formatter = JsonFormatter(component)
    else:
        formatter = TextFormatter(component, colours=target.isatty())
    handler.setFormatter(formatter)
    handler.set_name("raydns")
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == "raydns"]:
        root.removeHandler(old)
    root.addHandler(handler)
    set_level(config)
    return handler


def set_level(config: LogConfig) -> None:
    """Takes a new level while running."""
    level = LEVELS[config.level]
    logging.getLogger().setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(level, logging.WARNING))


class JsonFormatter(logging.Formatter):
    """One object a line: time, level, logger, component, event, then the key-values."""

    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; whatever is odd in it is made into text."""
        fields = _fields(record, self.component)
        try:
            text = _encoder.encode(fields).decode()
        except Exception:
            # Something that JSON cannot say (a surrogate, a circle, a __str__ that raises): each value as text.
            text = _encoder.encode({_text(key): _text(value) for key, value in fields.items()}).decode()
        return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class TextFormatter(logging.Formatter):
    """``17:31:02.123 warning ingress stream_down endpoint=cache:0.g1``, with colours on a terminal."""

    _COLOURS: Final = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "31;1"}

    def __init__(self, component: str, *, colours: bool = False) -> None:
        super().__init__()
        self.component = component
        self.colours = colours

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line; a traceback follows on lines of its own, indented."""
        fields = _fields(record, self.component)
        level = fields.pop("level")
        clock = _when(record.created).strftime("%H:%M:%S.%f")[:-3]
        head = f"{level:<7}"
        if self.colours:
            head = f"\x1b[{self._COLOURS.get(level, '0')}m{head}\x1b[0m"
        behind = [_text(fields.pop(key)) for key in ("error", "stack") if key in fields]
        event = fields.pop("event")
        for key in ("time", "logger", "component"):
            del fields[key]
        pairs = "".join(f" {_escape(_text(key))}={_quoted(_text(value))}" for key, value in fields.items())
        lines = [f"{clock} {head} {_escape(self.component)} {_escape(event)}{pairs}"]
        lines += [f"    {_escape(line)}" for block in behind for line in block.splitlines()]
        return "\n".join(lines)


def _fields(record: logging.LogRecord, component: str) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "time": _when(record.created).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "level": record.levelname.lower(),
        "logger": record.name,
        "component": component,
        "event": _message(record),
    }
    for key, value in vars(record).items():
        if key in RECORD_KEYS or key.startswith("_"):  # Ray marks every record of its processes
            continue
        if key in _HEXADECIMAL and isinstance(value, bytes):
            fields[key] = value.hex()
        else:
            fields[f"extra_{key}" if key in _OWN_KEYS else key] = _plain(value)
    if record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        fields["error"] = _traceback(record)
        if isinstance(error, RaydnsError):
            fields.setdefault("error_code", error.code)
    if record.stack_info:
        fields["stack"] = _text(record.stack_info)
    return fields


def _plain(value: Any) -> Any:
    """Simple values as they are, text cut to its bound, everything else for the encoder's hook."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not isinstance(value, bool) and not -(1 << 63) <= value < 1 << 64:
        return str(value) if value.bit_length() < 4096 else f"an integer of {value.bit_length()} bits"
    if isinstance(value, bytes | bytearray | memoryview):
        return _text(value)
    return value


def _text(value: Any) -> str:
    """Any value as bounded, encodable text; never raises."""
    try:
        if isinstance(value, str):
            text = value
        elif isinstance(value, bytes | bytearray | memoryview):
            text = bytes(value[:TEXT_MAX]).decode("ascii", "backslashreplace")
        else:
            text = str(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose text raises {type(error).__name__}>"
    if len(text) > TEXT_MAX:
        text = text[:TEXT_MAX] + TRUNCATED
    return text.encode("utf-8", "backslashreplace").decode()


def _message(record: logging.LogRecord) -> str:
    try:
        return _text(record.getMessage())
    except Exception:  # arguments that do not fit the format: the line is still worth having
        return f"{_text(record.msg)} {_text(record.args)}"


def _traceback(record: logging.LogRecord) -> str:
    try:
        return _text(logging.Formatter().formatException(record.exc_info))  # type: ignore[arg-type]
    except Exception as error:
        return f"<a traceback that raises {type(error).__name__}>"


def _when(created: float) -> datetime:
    try:
        return datetime.fromtimestamp(created, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _escape(text: str) -> str:
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _quoted(text: str) -> str:
    escaped = _escape(text)
    if escaped and not set(escaped) & set(" \"'="):
        return escaped
    return '"' + escaped.replace("\\", "\\\\").replace('"', '\\"') + '"'


_encoder: Final = msgspec.json.Encoder(enc_hook=_text)
