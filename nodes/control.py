"""Control sockets: how the processes of one machine steer each other.

A request and its response are one frame each: u32 LE length, then a msgpack map. ``{"method": str, "params": {}}``
is answered by ``{"ok": {}}`` or ``{"error": {code, message, where, hint}}``. A connection may carry several
requests, one after another. The directory (0700) and the socket (0600) are the access control.

A server binds a temporary name and renames it into place: a new process takes over the name of a living or dead
one in one step, and the old one goes on serving whoever holds a hard link to its socket.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from raydns.schemas.errors import CommandError, FrameError, RaydnsError, UnreachableError, catalogue

_log = logging.getLogger(__name__)

FRAME_MAX: Final = 16 * 1024 * 1024
CONNECTIONS_MAX: Final = 64
_REQUEST_TIMEOUT_S: Final = 30.0
LENGTH: Final = struct.Struct("<I")

Method = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
"""A method: named parameters in, a map out; what its caller must know it raises as ``RaydnsError``."""


class _Request(msgspec.Struct):
    """A request as it comes in; checked, since somebody may type it by hand."""

    method: str
    params: dict[str, Any] = {}


_request_decoder = msgspec.msgpack.Decoder(_Request)


class ControlServer:
    """Serves methods on a Unix socket; one task a connection, a bounded number of connections."""

    def __init__(self, path: Path, methods: Mapping[str, Method]) -> None:
        self.path = path
        self._methods = dict(methods)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._inode = 0  # of our socket's name: another process may have taken it over

    async def start(self) -> None:
        """Begins to listen, in place of whoever had the name before."""
        listener = listen(self.path)
        self._inode = self.path.stat().st_ino
        self._server = await asyncio.start_unix_server(self._connected, sock=listener)

    async def close(self) -> None:
        """Stops listening, ends open connections, removes the name if it is still ours."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        unlink_own(self.path, self._inode)
        current = asyncio.current_task()
        for task in [task for task in self._tasks if task is not current]:
            task.cancel()
        await asyncio.gather(*(task for task in self._tasks if task is not current), return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if len(self._tasks) >= CONNECTIONS_MAX or task is None:
            _log.warning("control connection refused: too many", extra={"path": str(self.path)})
            writer.close()
            return
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # the caller went away or sat there: its right, and nothing to tell
        except asyncio.CancelledError:
            pass  # closing: the task ends here
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                if length > FRAME_MAX:
                    error = FrameError(f"request of {length} octets; at most {FRAME_MAX}", where=str(self.path))
                    writer.write(frame({"error": error.as_dict()}))
                    await writer.drain()
                    return
                body = await reader.readexactly(length)
            writer.write(await self._answer(body))
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                await writer.drain()

    async def _answer(self, body: bytes) -> bytes:
        name = ""
        try:
            request = _request_decoder.decode(body)
            name = request.method
            method = self._methods.get(name)
            if method is None:
                raise CommandError(
                    f"unknown method {name[:64]!r}",
                    where=str(self.path),
                    hint=f"known are {', '.join(sorted(self._methods))}",
                )
            answer = frame({"ok": await method(request.params)})
            if len(answer) > FRAME_MAX + LENGTH.size:
                raise FrameError(f"the answer has {len(answer)} octets; at most {FRAME_MAX}", where=name)
        except RaydnsError as error:
            return frame({"error": error.as_dict()})
        except (msgspec.ValidationError, msgspec.DecodeError) as problem:
            if name:  # inside the method: its own fault, not the caller's
                return self._unexpected(name)
            malformed = FrameError(f"malformed request: {problem}", where=str(self.path))
            return frame({"error": malformed.as_dict()})
        except Exception:
            return self._unexpected(name)
        return answer

    def _unexpected(self, name: str) -> bytes:
        """What nobody foresaw: the whole story stays in our log, the caller learns where to look."""
        _log.exception("control method failed", extra={"method": name, "path": str(self.path)})
        error = RaydnsError(f"{name} failed unexpectedly", where=self.path.stem, hint="its log has the details")
        return frame({"error": error.as_dict()})


async def call(
    path: Path, method: str, params: Mapping[str, Any] | None = None, timeout_s: float = 5.0
) -> dict[str, Any]:
    """Calls a method of another process on this machine.

    Raises:
        UnreachableError: nobody is there, or no answer came in time.
        RaydnsError: what the method raised, as its own class.
    """
    request = _encode_request(method, params)
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(request)
                (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
                body = await reader.readexactly(bounded(length, path))
            finally:
                writer.close()
    except (OSError, EOFError) as error:  # TimeoutError is an OSError
        raise unreachable(error, path, method, timeout_s) from error
    return _decode_response(body, path)


def call_sync(
    path: Path, method: str, params: Mapping[str, Any] | None = None, timeout_s: float = 5.0
) -> dict[str, Any]:
    """``call`` with a plain blocking socket, for the command line and for threads; raises the same."""
    request = _encode_request(method, params)
    deadline = time.monotonic() + timeout_s
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            connection.sendall(request)
            (length,) = LENGTH.unpack(receive(connection, LENGTH.size, deadline))
            body = receive(connection, bounded(length, path), deadline)
    except (OSError, EOFError) as error:
        raise unreachable(error, path, method, timeout_s) from error
    return _decode_response(body, path)


def listen(path: Path) -> socket.socket:
    """A listening Unix socket (0600) under a name that is taken over in one step from whoever had it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # No umask games: the directory is 0700, so nobody else can connect before the mode is set.
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(CONNECTIONS_MAX)
        os.replace(temporary, path)
    except BaseException:
        listener.close()
        temporary.unlink(missing_ok=True)
        raise
    return listener


def unlink_own(path: Path, inode: int) -> None:
    """Removes a socket's name unless somebody else has taken it over since."""
    try:
        if path.stat().st_ino == inode:
            path.unlink()
    except FileNotFoundError:
        return  # taken away already


def frame(content: object) -> bytes:
    """A map as it crosses a control socket."""
    body = msgspec.msgpack.encode(content)
    return LENGTH.pack(len(body)) + body


def _encode_request(method: str, params: Mapping[str, Any] | None) -> bytes:
    request = frame({"method": method, "params": dict(params or {})})
    if len(request) > FRAME_MAX + LENGTH.size:
        raise FrameError(f"the request {method} has {len(request)} octets; at most {FRAME_MAX}")
    return request


def bounded(length: int, path: Path) -> int:
    """The length of a frame, refused where it is above ``FRAME_MAX``."""
    if length > FRAME_MAX:
        raise FrameError(f"an answer of {length} octets; at most {FRAME_MAX}", where=str(path))
    return length


def receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly ``size`` octets from a blocking socket, or ``TimeoutError`` at the monotonic deadline."""
    parts = bytearray()
    while len(parts) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        data = connection.recv(min(size - len(parts), 1 << 20))
        if not data:
            raise EOFError
        parts += data
    return bytes(parts)


def _decode_response(body: bytes, path: Path) -> dict[str, Any]:
    try:
        response = msgspec.msgpack.decode(body, type=dict[str, dict[str, Any]])
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise FrameError(f"malformed answer: {error}", where=str(path)) from error
    problem = response.get("error")
    if problem is not None:
        raise _error_of(problem)
    return response.get("ok", {})


def _error_of(problem: Mapping[str, Any]) -> RaydnsError:
    """The error that a process told, as its own class, or as the nearest one above it that is known here."""
    known, code = catalogue(), str(problem.get("code", ""))
    while code not in known and "." in code:
        code = code.rpartition(".")[0]
    kind = known.get(code, RaydnsError)
    error = kind.__new__(kind)
    # Not the class's own constructor: one that makes its message from other things could not be called here.
    texts = {name: str(problem.get(name, "")) for name in ("message", "where", "hint")}
    RaydnsError.__init__(error, texts["message"], where=texts["where"], hint=texts["hint"])
    return error


def unreachable(error: BaseException, path: Path, method: str, timeout_s: float) -> UnreachableError:
    """A failed exchange, said so that the reader knows whether to start, to wait or to change user."""
    hint = "is it running? raydns up"
    if isinstance(error, FileNotFoundError):
        text = f"nobody is there for {method}: the socket does not exist"
    elif isinstance(error, ConnectionRefusedError):
        text = f"nobody is there for {method}: the process behind the socket has gone"
    elif isinstance(error, TimeoutError):
        text = f"no answer to {method} within {timeout_s:g} s"
        hint = "it is busy or stopped; `raydns node status` and its log say more"
    elif isinstance(error, PermissionError):
        text, hint = f"no permission to ask for {method}", "run as the user that owns the state directory"
    else:
        text = f"the process went away before it answered {method}"
    return UnreachableError(text, where=str(path), hint=hint)
