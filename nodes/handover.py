"""Hand-over of sockets between two processes of a machine: to a child at its start, or to whoever asks later.

A descriptor that is handed over is the same socket: what is queued in it is lost by nobody. (Closing the old of
two SO_REUSEPORT sockets lost every query queued in it.) Two ways:

- At start, as in systemd's socket activation (sd_listen_fds(3)): descriptors from 3 on, ``LISTEN_FDS`` their count,
  ``LISTEN_FDNAMES`` their names. ``LISTEN_PID`` is not looked at: nothing between us and the child could set it.
  The child writes one line to the pipe ``RAYDNS_READY_FD`` when it answers; a pipe that closes without it is failure.
- Later, over a Unix socket with SCM_RIGHTS (unix(7)): a supervisor started anew gets the sockets of its ingress.

A name is ``udp`` or ``tcp``; where a socket is bound it tells itself (getsockname).
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from raydns.nodes.control import LENGTH, bounded, frame, listen, receive, unlink_own, unreachable
from raydns.schemas.errors import FrameError, SocketError

_log = logging.getLogger(__name__)

DESCRIPTORS_MAX: Final = 250
"""Sockets in one hand-over; the kernel takes 253 descriptors a message (SCM_MAX_FD)."""
FIRST_DESCRIPTOR: Final = 3
"""SD_LISTEN_FDS_START."""
READY: Final = b"READY=1\n"


def inherited_sockets(environ: Mapping[str, str]) -> list[tuple[str, socket.socket]]:
    """The named sockets that this process was started with; closed on exec from here on. Call it once.

    Raises:
        SocketError: the environment promises sockets that are not there.
    """
    count = environ.get("LISTEN_FDS", "0")
    if not count.isdecimal() or int(count) > DESCRIPTORS_MAX:
        raise SocketError(f"LISTEN_FDS is {count!r}", hint=f"a number from 0 to {DESCRIPTORS_MAX}")
    given = [name for name in environ.get("LISTEN_FDNAMES", "").split(":") if name]
    found: list[tuple[str, socket.socket]] = []
    for at in range(int(count)):
        handle = FIRST_DESCRIPTOR + at
        try:
            os.set_inheritable(handle, False)
            held = socket.socket(fileno=handle)
        except OSError as error:
            raise SocketError(f"descriptor {handle} of LISTEN_FDS={count} is not a socket: {error}") from error
        kind = "udp" if held.type == socket.SOCK_DGRAM else "tcp"
        found.append((given[at] if at < len(given) else kind, held))
    return found


def announce_ready(environ: Mapping[str, str]) -> None:
    """Tells whoever started this process that it answers now; without a listener it does nothing. Call it once."""
    handle = environ.get("RAYDNS_READY_FD", "")
    if not handle.isdecimal():
        return
    try:
        os.write(int(handle), READY)
        os.close(int(handle))
    except OSError as error:
        _log.warning("nobody waits for our readiness", extra={"problem": str(error)})


class SocketGiver:
    """Gives this process's sockets to whoever connects: one message with descriptors (SCM_RIGHTS), then the end.

    The message is a control frame ``{"names": [...]}``: the names of the descriptors that come with it, in order.
    """

    def __init__(self, path: Path, sockets: Callable[[], Sequence[tuple[str, socket.socket]]]) -> None:
        self.path = path
        self._sockets = sockets
        self._listener: socket.socket | None = None
        self._inode = 0

    async def start(self) -> None:
        """Begins to listen, in place of whoever had the name before."""
        self._listener = listen(self.path)
        self._listener.setblocking(False)
        self._inode = self.path.stat().st_ino
        asyncio.get_running_loop().add_reader(self._listener.fileno(), self._give)

    async def close(self) -> None:
        """Stops giving, removes the name if it is still ours."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._listener.close()
        self._listener = None
        unlink_own(self.path, self._inode)

    def _give(self) -> None:
        if self._listener is None:
            return
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it went away between the wake-up and here
        with connection:
            connection.setblocking(False)  # a frame this small always fits an empty buffer
            named = list(self._sockets())[:DESCRIPTORS_MAX]
            try:
                message = frame({"names": [name for name, _ in named]})
                descriptors = array.array("i", [held.fileno() for _, held in named])
                connection.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)] if named else [])
            except OSError as error:
                _log.warning("sockets not handed over", extra={"path": str(self.path), "problem": str(error)})


def take_sockets(path: Path, timeout_s: float = 2.0) -> list[tuple[str, socket.socket]]:
    """The named sockets of the process that gives them at ``path``; blocks for at most ``timeout_s``.

    Raises:
        UnreachableError: nobody gives sockets there.
    """
    taken: list[int] = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(path))
            data, taken, flags = _receive_descriptors(connection)
            if len(data) < LENGTH.size:
                raise EOFError
            (length,) = LENGTH.unpack_from(data)
            rest = bounded(length, path) - (len(data) - LENGTH.size)
            data += receive(connection, rest, time.monotonic() + timeout_s) if rest > 0 else b""
        names = msgspec.msgpack.decode(data[LENGTH.size :], type=dict[str, list[str]]).get("names", [])
        if len(names) != len(taken) or flags & socket.MSG_CTRUNC:
            raise FrameError(f"{len(names)} names came with {len(taken)} sockets", where=str(path))
        sockets = [socket.socket(fileno=handle) for handle in taken]
        taken = []
        return list(zip(names, sockets, strict=True))
    except (OSError, EOFError) as error:
        raise unreachable(error, path, "the hand-over of sockets", timeout_s) from error
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        raise FrameError(f"malformed hand-over: {error}", where=str(path)) from error
    finally:
        for handle in taken:
            os.close(handle)


def _receive_descriptors(connection: socket.socket) -> tuple[bytes, list[int], int]:
    """``socket.recv_fds``, but closed on exec: Python 3.11's forgets the flags that it is given."""
    handles = array.array("i")
    space = socket.CMSG_LEN(DESCRIPTORS_MAX * handles.itemsize)
    data, ancillary, flags, _ = connection.recvmsg(65536, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            handles.frombytes(content[: len(content) - len(content) % handles.itemsize])
    return data, list(handles), flags
