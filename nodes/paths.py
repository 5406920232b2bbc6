"""The state directory of a machine: where everything on its disk is, whose it is, and who may use it now.

Rules of this file: ``StateDir`` only knows names; nothing is touched before ``create`` or ``lock``. A directory
that holds something and does not bear our mark is refused, so that a mistyped ``state_dir`` never mixes our files
with somebody's home, and no empty directory ever passes for a machine's memory.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import Final

from raydns.schemas.errors import StateError

_log = logging.getLogger(__name__)

MARKER: Final = "raydns-state"
"""Name of the marker file; it holds the format of the directory."""
STATE_FORMAT: Final = 1
SOCKET_PATH_MAX: Final = 107
"""Octets of a Unix socket path: ``sun_path`` of unix(7) is 108 with its end."""
_LONGEST_SOCKET: Final = "run/s/controller-9999.sock"
_DIRECTORIES: Final = ("known", "images", "run", "run/s", "zone", "gcs", "logs")
_MAY_COME_FIRST: Final = frozenset({"cluster_secret", "ray_token", "lost+found"})
"""What may stand in a directory before its first use: secrets put there by ``file_mounts``, and a fresh mount."""


def state_error(error: OSError, path: Path, doing: str) -> StateError:
    """An ``OSError`` on something of ours, said so that an operator knows what to do; chain it with ``from``."""
    hints = {
        errno.ENOSPC: "the disk is full; make room or choose another state_dir",
        errno.EDQUOT: "the disk quota is used up; make room or choose another state_dir",
        errno.EROFS: "the file system is read-only; choose another state_dir",
        errno.EACCES: f"user {_user()} may not do that there; change the owner or choose another state_dir",
        errno.EPERM: f"user {_user()} may not do that there; change the owner or choose another state_dir",
        errno.ENOTDIR: "a part of the path is a file; choose another state_dir",
        errno.ENOENT: "nothing can be made there; choose another state_dir",
        errno.EIO: "the disk reports errors; look at the kernel's log",
        errno.ENAMETOOLONG: "choose a shorter state_dir",
        errno.ELOOP: "symbolic links lead in a circle; choose another state_dir",
    }
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StateError(f"cannot {doing}: {reason}", where=str(path), hint=hints.get(error.errno or 0, ""))


def fsync_directory(path: Path) -> None:
    """Makes renames and new names in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Writes a file so that a reader sees the old content or the new, also after a power cut; raises ``OSError``."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_directory(path.parent)


class StateDir:
    """All names below one ``state_dir``; two clusters on one machine have two of them.

    Raises:
        StateError: the path is so long that its Unix sockets could not be bound.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))
        longest = len(os.fsencode(self.path / _LONGEST_SOCKET))
        if longest > SOCKET_PATH_MAX:
            raise StateError(
                f"the path has {longest - SOCKET_PATH_MAX} octets too many for the Unix sockets in it",
                where=str(self.path),
                hint=f"choose a state_dir of at most {SOCKET_PATH_MAX - len(_LONGEST_SOCKET) - 1} octets",
            )
        self.marker = self.path / MARKER
        self.secret = self.path / "cluster_secret"
        self.ray_token = self.path / "ray_token"
        self.known = self.path / "known"
        self.images = self.path / "images"
        self.run = self.path / "run"
        self.node_socket = self.run / "node.sock"
        self.ingress_socket = self.run / "ingress.sock"
        self.ingress_fds_socket = self.run / "ingress-fds.sock"
        self.agent_socket = self.run / "agent.sock"
        self.node_lock = self.run / "node.lock"
        self.logs = self.path / "logs"
        self.gcs = self.path / "gcs"

    def __repr__(self) -> str:
        return f"StateDir({str(self.path)!r})"

    def stream_socket(self, kind: str, index: int) -> Path:
        """Where the actor ``kind:index`` of this machine listens for streams."""
        return self.run / "s" / f"{kind}-{index}.sock"

    def zone_store(self, index: int) -> Path:
        """The LMDB directory of zone shard ``index``; the shard makes it."""
        return self.path / "zone" / str(index)

    def create(self) -> StateDir:
        """Makes the directory with mode 0700, marks it, and makes what belongs in it; may be said again.

        Raises:
            StateError: it cannot be written, is not a directory, is somebody else's, or holds foreign files.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except FileExistsError as error:
            raise StateError("is not a directory", where=str(self.path), hint="choose another state_dir") from error
        except OSError as error:
            raise state_error(error, self.path, "create the state directory") from error
        try:
            self._check_owner()
            self._check_mark()
            self._close_to_others()
            for name in _DIRECTORIES:
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise state_error(error, self.path, "use the state directory") from error
        return self

    def _check_owner(self) -> None:
        found = self.path.stat()
        if found.st_uid != os.geteuid():
            raise StateError(
                f"belongs to user id {found.st_uid}, and this process runs as {os.geteuid()}",
                where=str(self.path),
                hint="run as its owner, change its owner (chown -R), or choose another state_dir",
            )

    def _close_to_others(self) -> None:
        """Only once it is known to be ours: a mistyped ``state_dir`` must not close ``/tmp`` to everybody."""
        if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
            _log.warning("state directory was open to others; closed", extra={"path": str(self.path)})
            self.path.chmod(0o700)

    def _check_mark(self) -> None:
        try:
            text = self.marker.read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            strangers = sorted(set(os.listdir(self.path)) - _MAY_COME_FIRST)
            strangers = [name for name in strangers if not name.startswith(f".{MARKER}.")]
            if strangers:
                raise StateError(
                    f"is not empty and was not made by raydns (it has no file {MARKER!r}; it holds {strangers[0]!r})",
                    where=str(self.path),
                    hint="choose an empty directory or a new one as state_dir",
                ) from None
            write_atomically(self.marker, f"{STATE_FORMAT}\n".encode())
            return
        if not text.strip().isdecimal():
            raise StateError(
                f"the marker file {MARKER!r} is damaged",
                where=str(self.marker),
                hint=f"if this is raydns's directory, write {STATE_FORMAT} into that file",
            )
        if int(text) > STATE_FORMAT:
            raise StateError(
                f"was made by a newer raydns (format {int(text)}, this one reads {STATE_FORMAT})",
                where=str(self.path),
                hint="install the newer release again, or choose another state_dir",
            )

    def lock(self) -> StateLock:
        """Takes the directory for one supervisor, until the lock is closed or the process ends.

        Raises:
            StateError: another process holds it; the message names its process id.
        """
        try:
            handle = os.open(self.node_lock, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise state_error(error, self.node_lock, "open the lock file") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            os.close(handle)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise state_error(error, self.node_lock, "lock the state directory") from error
            raise StateError(
                f"is in use by another supervisor (process {holder or 'unknown'})",
                where=str(self.path),
                hint="`raydns node stop` ends it; a second cluster on this machine needs its own state_dir and ports",
            ) from error
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(handle)
            raise state_error(error, self.node_lock, "write the lock file") from error
        return StateLock(handle)

    def lock_holder(self) -> int:
        """The process id that holds the directory now; 0 if nobody does."""
        try:
            handle = os.open(self.node_lock, os.O_RDWR)
        except OSError:
            return 0
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            text = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
            return int(text) if text.isdecimal() else 0
        finally:
            os.close(handle)
        return 0


class StateLock:
    """A held ``flock``; the kernel drops it with the process, so no stale lock ever needs a human."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def close(self) -> None:
        """Gives the directory back."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __enter__(self) -> StateLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _user() -> str:
    return str(os.geteuid())
