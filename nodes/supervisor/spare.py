"""One ingress in reserve: a process that has imported everything and waits (see ``standby``), so that a crash costs
a fraction of a second also on a machine that has no processor to spare just then.

Only crashes use it. A take-over starts afresh: it may well be there to bring in new code.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from raydns.nodes.control import frame

from . import process
from .process import Process
from .standby import IMPORTED

_log = logging.getLogger(__name__)

DELAY_S: Final = 3.0
"""After an ingress is ready: its own start, and Ray's, go first."""
_SEND_TIMEOUT_S: Final = 1.0


class Spare:
    """At most one process in reserve."""

    def __init__(self, module: str, arguments: Sequence[str], environ: Mapping[str, str], log: Path) -> None:
        self._command = [sys.executable, "-m", "raydns.nodes.supervisor.standby", module, *arguments]
        self._environ = dict(environ)
        self._log_path = log
        self._process: Process | None = None
        self._link: socket.socket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether one waits, with everything imported."""
        return self._ready and self._process is not None and not self._process.gone

    @property
    def pid(self) -> int:
        """Of the one that waits; 0 if none does."""
        return self._process.pid if self._process is not None else 0

    def renew(self, delay_s: float = DELAY_S) -> None:
        """Puts a fresh one in place of the one that waits, after a while."""
        self.drop()
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._start)

    def use(self, environ: Mapping[str, str], handles: Sequence[int], on_exit: Callable[[str], None]) -> Process | None:
        """The one in reserve becomes the module now; ``None`` if there is none, or it cannot be told."""
        if not self.ready or self._process is None or self._link is None:
            return None
        try:
            self._link.settimeout(_SEND_TIMEOUT_S)
            message = frame(dict(environ))
            sent = socket.send_fds(self._link, [message], list(handles))
            self._link.sendall(message[sent:])
        except OSError as error:
            _log.warning("the ingress in reserve cannot be used", extra={"problem": str(error)})
            self.drop()
            return None
        used, self._process = self._process, None
        used.on_exit = on_exit
        self._unlink()
        return used

    def drop(self) -> None:
        """Ends the one that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._unlink()
        if self._process is not None:
            self._process.send(signal.SIGKILL)
            self._process = None

    async def close(self) -> None:
        """Ends the one that waits, and sees it go."""
        one = self._process
        self.drop()
        if one is not None:
            await one.wait()

    def _start(self) -> None:
        self._timer = None
        ours, theirs = socket.socketpair()
        try:
            output = process.open_log(self._log_path)
            try:
                self._process = process.spawn(
                    self._command,
                    self._environ,
                    output=output,
                    descriptors=[theirs.fileno()],
                    on_exit=_gone,
                )
            finally:
                os.close(output)
        except OSError as error:
            ours.close()
            _log.warning("no ingress in reserve", extra={"problem": str(error)})
            return
        finally:
            theirs.close()
        self._link = ours
        ours.setblocking(False)
        asyncio.get_running_loop().add_reader(ours.fileno(), self._heard)

    def _heard(self) -> None:
        if self._link is None:
            return
        data = b""
        with contextlib.suppress(OSError):
            data = self._link.recv(16)
        asyncio.get_running_loop().remove_reader(self._link.fileno())
        self._ready = data == IMPORTED
        if not self._ready:
            self.drop()

    def _unlink(self) -> None:
        self._ready = False
        if self._link is not None:
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            self._link.close()
            self._link = None


def _gone(reason: str) -> None:
    _log.debug("the ingress in reserve has gone", extra={"reason": reason})
