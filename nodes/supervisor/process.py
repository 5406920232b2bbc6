"""A child process and its watch: started with exact descriptors in a session of its own, or adopted from /proc.

Watched by pidfd (pidfd_open(2)), which also works for processes that are not our children: those that an earlier
supervisor started. A child outlives us on purpose: no Ctrl-C of a terminal and no end of ours reaches it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from . import procfs
from .procfs import Identity

_HIGH: Final = 200
"""Descriptors are first copied above this number, so that putting one into place never overwrites another."""
REST_S: Final = 1.0
"""For processes whose parent is gone: Ray's agents do not heed SIGTERM at all then, its workers do at once."""
_POLL_S: Final = 0.05
_FORCE_S: Final = 10.0
"""How long SIGKILL may take."""
LOG_MAX: Final = 16 * 1024 * 1024
_DEFAULT_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE, signal.SIGQUIT)


_watched: Final[set[int]] = set()


def is_watched(pid: int) -> bool:
    """Whether the process is our child and its status is waited for by its watch."""
    return pid in _watched


class Process:
    """A living process; ``on_exit`` is called once, in the event loop, with a sentence on how it ended."""

    def __init__(self, who: Identity, on_exit: Callable[[str], None], *, child: bool) -> None:
        self.who = who
        self._child = child
        self.on_exit = on_exit
        self._gone = asyncio.Event()
        self._pidfd = os.pidfd_open(who.pid)
        if child:
            _watched.add(who.pid)
        asyncio.get_running_loop().add_reader(self._pidfd, self._exited)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.who.pid

    @property
    def gone(self) -> bool:
        """Whether it has ended."""
        return self._gone.is_set()

    def send(self, number: int) -> None:
        """Sends a signal; to one that has ended: nothing. Never reaches a recycled process id."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def wait(self) -> None:
        """Until it has ended."""
        await self._gone.wait()

    def forget(self) -> None:
        """Stops watching: whoever closes the event loop leaves the process alone."""
        if self._pidfd >= 0:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _exited(self) -> None:
        reason = self._reap() if self._child else "ended"
        _watched.discard(self.pid)
        self.forget()
        self._gone.set()
        self.on_exit(reason)

    def _reap(self) -> str:
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            return "ended"
        if result is None:
            return "ended"
        if result.si_code == os.CLD_EXITED:
            return f"exited with status {result.si_status}"
        return f"was ended by {_signal_name(result.si_status)}"


def spawn(
    command: Sequence[str],
    environ: Mapping[str, str],
    *,
    output: int,
    descriptors: Sequence[int] = (),
    on_exit: Callable[[str], None],
) -> Process:
    """Starts a command in a session of its own.

    Args:
        command: program and arguments.
        environ: its whole environment.
        output: descriptor for its standard output and error.
        descriptors: become 3, 4, … there; nothing else is passed on.
        on_exit: see ``Process``.

    Raises:
        OSError: it cannot be started.
    """
    high: list[int] = []
    actions: list[tuple[int, int, int]] = []
    null = os.open(os.devnull, os.O_RDONLY)
    try:
        for at, handle in enumerate((null, output, output, *descriptors)):
            high.append(fcntl.fcntl(handle, fcntl.F_DUPFD_CLOEXEC, _HIGH))
            actions.append((os.POSIX_SPAWN_DUP2, high[-1], at))
        # posix_spawn and not fork: a forked copy of a process with threads may run into any lock.
        pid = os.posix_spawnp(
            command[0],
            list(command),
            dict(environ),
            file_actions=actions,
            setsid=True,
            setsigmask=[],
            setsigdef=_DEFAULT_SIGNALS,
        )
    finally:
        os.close(null)
        for handle in high:
            os.close(handle)
    found = procfs.stat(pid)  # a child is at least a zombie until it is reaped
    return Process(found.identity if found is not None else Identity(pid, 0), on_exit, child=True)


def adopt(who: Identity, on_exit: Callable[[str], None]) -> Process | None:
    """Watches a process that somebody else started; ``None`` if it lives no more."""
    try:
        process = Process(who, on_exit, child=False)
    except OSError as error:
        if error.errno == errno.ESRCH:
            return None
        raise
    # Looked at after the pidfd is open: from here on the id cannot come to mean somebody else.
    if not procfs.is_alive(who):
        process.forget()
        return None
    return process


def seal_descriptors() -> None:
    """What our starter left open goes to no child: an ingress must not hold a stranger's pipe or lock."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.set_inheritable(int(name), False)


def open_log(path: Path) -> int:
    """A descriptor that appends to a log file; one above 16 MiB is put aside as ``.1`` first."""
    try:
        if path.stat().st_size > LOG_MAX:
            path.replace(path.with_name(f"{path.name}.1"))
    except FileNotFoundError:
        pass  # the first start
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def log_tail(path: Path, lines: int = 5, size: int = 4096) -> str:
    """The last lines of a log, for the message that says that something did not start."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            text = file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


async def end_all(
    find: Callable[[], set[Identity]], first: Process | None, *, grace_s: float, immediate: bool, rest_s: float = REST_S
) -> set[Identity]:
    """Ends a family of processes: the first one politely, then whatever is left, then by force.

    Args:
        find: the living members now; asked again and again, since they start others while they go.
        first: takes its own with it on SIGTERM, if it still lives.
        grace_s: for the first one.
        immediate: nothing but SIGKILL.
        rest_s: for the others, once the first one is gone.

    Returns:
        Those that not even SIGKILL ended (waiting for a dead disk, or another user's); almost always none.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    alone_since = began if immediate or first is None or first.gone else None
    if alone_since is None and first is not None:
        first.send(signal.SIGTERM)
    asked: set[Identity] = set()
    while members := await asyncio.to_thread(find):
        now = loop.time()
        if alone_since is None and (first is None or first.gone or now - began > grace_s):
            alone_since = now
        if alone_since is not None:
            waited = now - alone_since
            if waited > rest_s + _FORCE_S:
                return members
            for who in members:
                if immediate or waited > rest_s:
                    _signal(who, signal.SIGKILL)
                elif who not in asked:
                    asked.add(who)
                    _signal(who, signal.SIGTERM)
        await asyncio.sleep(_POLL_S)
    return set()


def _signal(who: Identity, number: int) -> None:
    try:
        handle = os.pidfd_open(who.pid)
    except OSError:
        return  # gone
    try:
        if procfs.is_alive(who):
            signal.pidfd_send_signal(handle, number)
    except (ProcessLookupError, PermissionError):
        return  # gone, or no longer ours to end: the next look decides
    finally:
        os.close(handle)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
