"""Listening Unix sockets: mode 0600 from the first moment, a dead one's file replaced, a living one's never."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
from pathlib import Path
from typing import Final

from raydns.schemas.errors import SocketError

BACKLOG: Final = 128
UNIX_PATH_MAX: Final = 107  # sockaddr_un holds 108 octets with the final zero


def listen_unix(path: Path) -> socket.socket:
    """A non-blocking listening socket at ``path``.

    It is bound under a temporary name, given its mode, and renamed: nobody ever finds it with wider rights, and
    a stale file is replaced in one step.

    Raises:
        SocketError: somebody listens there, the path is too long, or the directory cannot be used.
    """
    if len(os.fsencode(path)) > UNIX_PATH_MAX:
        raise SocketError(
            f"a Unix socket's path has at most {UNIX_PATH_MAX} octets", where=str(path), hint="use a shorter state_dir"
        )
    if _is_alive(path):
        raise SocketError(
            "somebody else listens on this socket",
            where=str(path),
            hint="stop the other process, or use another state_dir",
        )
    temporary = path.with_name(f".{secrets.token_hex(3)}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(BACKLOG)
        temporary.replace(path)
    except OSError as error:
        listener.close()
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SocketError(
            f"cannot listen: {error.strerror or error}",
            where=str(path),
            hint="the directory must exist and be writable",
        ) from error
    return listener


def _is_alive(path: Path) -> bool:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):  # connecting to a plain file is "refused" too
            raise SocketError("there is a file that is no socket", where=str(path), hint="move it away")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise SocketError(f"the path cannot be used for a socket: {error.strerror}", where=str(path)) from error
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        probe.connect(str(path))
    except BlockingIOError:  # its backlog is full: very much alive
        return True
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    except OSError as error:
        raise SocketError(
            f"the path cannot be used for a socket: {error.strerror or error}", where=str(path)
        ) from error
    finally:
        probe.close()
    return True


def inode(path: Path) -> tuple[int, int] | None:
    """What tells whether the file at ``path`` is still the one we made; ``None`` where there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
