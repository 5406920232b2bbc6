"""The one tree of errors that raydns raises on purpose, and its catalogue.

    RaydnsError                     every error of ours; has a code, a message, a place and a hint
    ├── WireError                   remote's fault: a packet, batch, frame or image that cannot be read
    │   ├── MessageError            a DNS message (RFC 1035) is malformed
    │   ├── BatchError              a batch between processes is malformed or of a foreign version
    │   ├── FrameError              a stream broke the framing, or exceeded its window
    │   └── ImageError              an image is damaged, truncated, foreign or too new
    ├── NameError_                  operator's or remote's fault: text or wire that is no domain name
    ├── ConfigError                 operator's fault: carries every problem at once (schemas/config)
    ├── ZoneFileError               operator's fault: carries every problem at once, with file and line
    ├── StateError                  local fault: a directory, lock, snapshot or secret that cannot be used
    ├── SocketError                 local fault: an address that cannot be bound
    ├── UnreachableError            local fault: a node, actor or controller that does not answer
    ├── UpstreamError               remote's fault: every upstream failed
    └── CommandError                operator's fault: a command whose arguments make no sense

Codes are stable: they stand in logs, ``--json`` output and the documentation. Errors that merely pass
through us (``OSError``, ``ssl.SSLError``) are chained as causes, never swallowed.
"""

from __future__ import annotations

from typing import ClassVar


class RaydnsError(Exception):
    """An error of ours: says what is wrong, where, and what to do.

    Args:
        message: what is wrong, one sentence without a full stop.
        where: the place: ``file:line``, a configuration path, an address, an actor.
        hint: what the reader can do about it.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments must survive the pickle with which an actor raises across processes.
        return (_rebuild, (type(self), self.message, self.where, self.hint))

    def as_dict(self) -> dict[str, str]:
        """The error as ``--json`` output and the API show it."""
        return {"code": self.code, "message": self.message, "where": self.where, "hint": self.hint}


def _rebuild(cls: type[RaydnsError], message: str, where: str, hint: str) -> RaydnsError:
    return cls(message, where=where, hint=hint)


class WireError(RaydnsError):
    """Bytes from somebody else that cannot be read."""

    code = "wire"


class MessageError(WireError):
    """A DNS message is malformed (RFC 1035 section 4)."""

    code = "wire.message"


class BatchError(WireError):
    """A batch between processes is malformed, too large, or of a version that we do not speak."""

    code = "wire.batch"


class FrameError(WireError):
    """A stream's peer broke the framing or sent more than its window allows."""

    code = "wire.frame"


class ImageError(WireError):
    """An image is damaged, truncated, foreign, or needs a feature that this reader lacks."""

    code = "wire.image"


class NameError_(RaydnsError):  # noqa: N801 - the builtin has the plain name
    """Text or wire that is not a domain name (RFC 1035 section 3.1)."""

    code = "name"
    exit_code = 3


class ConfigError(RaydnsError):
    """The configuration cannot be used; lists every problem at once."""

    code = "config"
    exit_code = 3


class ZoneFileError(RaydnsError):
    """A master file cannot be used; lists every problem at once."""

    code = "zone.file"
    exit_code = 3


class StateError(RaydnsError):
    """Something on this machine's disk cannot be used: directory, lock, snapshot, secret."""

    code = "state"
    exit_code = 5


class SocketError(RaydnsError):
    """An address that cannot be bound."""

    code = "socket"
    exit_code = 5


class UnreachableError(RaydnsError):
    """A node, an actor or the controller does not answer."""

    code = "unreachable"
    exit_code = 4


class UpstreamError(RaydnsError):
    """Every upstream that could have answered failed."""

    code = "upstream"


class CommandError(RaydnsError):
    """A command whose arguments make no sense in the cluster's present state."""

    code = "command"
    exit_code = 2


def catalogue() -> dict[str, type[RaydnsError]]:
    """Every error code with its class, for the documentation and the tests."""
    found: dict[str, type[RaydnsError]] = {}
    todo: list[type[RaydnsError]] = [RaydnsError]
    while todo:
        cls = todo.pop()
        found[cls.code] = cls
        todo.extend(cls.__subclasses__())
    return dict(sorted(found.items()))
