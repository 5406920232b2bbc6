"""Ray on this machine, as the core commands it: start it, end it without a rest, run the plan's one-shot commands.

What was seen of ``ray start --block`` stands in docs/decisions/0020-how-ray-is-run.md. Never ``ray stop``: it ends
every Ray of the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import signal
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import msgspec

from raydns.nodes.paths import StateDir

from . import events as ev
from . import process, procfs, records
from .plan import RayPlan
from .process import Process

_log = logging.getLogger(__name__)

MARK_NAME: Final = "RAYDNS_RAY_MARK"
GRACE_S: Final = 8.0
"""``ray start`` took 1.3 to 3.3 s from SIGTERM to the end of its last process on a busy machine."""
_READY_TIMEOUT_S: Final = 15.0
_DRAIN_OFF: Final = {"RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0"}
"""Else SIGTERM waits 30 s for actors that never leave by themselves; ours have been drained by the controller."""


class RayChild:
    """The one Ray of this state directory."""

    def __init__(
        self,
        state_dir: StateDir,
        plan: RayPlan | None,
        environ: Mapping[str, str],
        tell: Callable[[ev.Event], None],
    ) -> None:
        self._plan = plan
        self._tell = tell
        self._environ = {**environ, **_DRAIN_OFF, **(plan.env if plan is not None else {})}
        self._record_path = state_dir.run / "ray.json"
        self._record: records.RayRecord | None = None
        self._main: Process | None = None
        self._jobs: dict[asyncio.Task[None], int] = {}
        self._starting: asyncio.Task[None] | None = None
        self._clearing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.log = state_dir.logs / "ray.log"

    @property
    def pid(self) -> int:
        """Of ``ray start``; 0 if it does not run."""
        return self._main.pid if self._main is not None and not self._main.gone else 0

    async def find(self) -> bool:
        """Adopts the Ray that an earlier supervisor left, if it is the one that the plan wants; else ends it."""
        record = self._record = records.load(self._record_path, records.RayRecord)
        if record is None:
            return False
        alive = record.main is not None and procfs.is_alive(record.main.who)
        if alive and record.main is not None and self._plan is not None and record.plan == _digest(self._plan):
            self._main = process.adopt(record.main.who, lambda reason: self._ended(0, reason))
        if self._main is not None:
            _log.info("Ray found running", extra={"pid": self._main.pid})
            return True
        if self._plan is None:
            await self._end_all(immediate=False)
        return False

    def start(self, number: int) -> None:
        """Starts Ray once nothing is left of the one before; tells ``RayExited`` when it ends."""
        self._starting = self._spawn(self._start(number))

    def clear(self, number: int, *, immediate: bool) -> None:
        """Ends every process of it; tells ``RayCleared``."""
        for task in list(self._jobs):
            task.cancel()
        if self._starting is not None:
            self._starting.cancel()
        if self._clearing is not None and not self._clearing.done():
            if not immediate:
                return
            self._clearing.cancel()
        self._clearing = self._spawn(self._clear(number, immediate=immediate))

    def run(self, number: int, job: ev.Job) -> None:
        """Runs a one-shot command; tells ``JobEnded``."""
        task = self._spawn(self._run(number, job))
        self._jobs[task] = number
        task.add_done_callback(lambda done: self._jobs.pop(done, None))

    def forget(self) -> None:
        """Leaves Ray alone: the supervisor goes, it stays."""
        for task in self._tasks:
            task.cancel()
        if self._main is not None:
            self._main.forget()

    async def _start(self, number: int) -> None:
        plan = self._plan
        if plan is None:
            return
        try:
            await self._end_all(immediate=False)
            mark = f"{MARK_NAME}={secrets.token_hex(8)}"
            # Noted down before the start: whatever happens from here on, the next supervisor finds what is left.
            self._record = records.RayRecord(mark, _digest(plan))
            records.save(self._record_path, self._record)
            self._main = self._spawn_process(plan.start, lambda reason: self._ended(number, reason))
            self._record = records.RayRecord(mark, _digest(plan), records.ProcessRecord(*self._main.who))
            records.save(self._record_path, self._record)
        except OSError as error:
            self._ended(number, f"cannot be started: {error}")
            return
        _log.info("Ray started", extra={"pid": self._main.pid, "number": number})

    async def _clear(self, number: int, *, immediate: bool) -> None:
        await self._end_all(immediate=immediate)
        self._tell(ev.RayCleared(number))

    async def _end_all(self, *, immediate: bool) -> None:
        record = self._record
        if record is None:
            return
        seen: set[procfs.Identity] = {record.main.who} if record.main is not None else set()

        def find() -> set[procfs.Identity]:
            found = procfs.family(record.mark, seen)
            seen.update(found)  # descent is lost with a parent: who was seen once stays ours
            return found

        left = await process.end_all(find, self._main, grace_s=GRACE_S, immediate=immediate)
        for who in left:
            _log.error(
                "a process of Ray cannot be ended", extra={"pid": who.pid, "command": procfs.command_line(who.pid)}
            )

    async def _run(self, number: int, job: ev.Job) -> None:
        plan = self._plan
        command = None if plan is None else plan.ready if job == "ready" else plan.bootstrap
        if plan is None or command is None:
            return
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        if self._starting is not None:
            await asyncio.wait({self._starting})  # it may still be clearing up what was before
        try:
            one = self._spawn_process(command, lambda reason: None if ended.done() else ended.set_result(reason))
        except OSError as error:
            _log.error("command of the plan cannot be started", extra={"job": job, "problem": str(error)})
            self._tell(ev.JobEnded(number, job, ok=False))
            return
        limit_s = _READY_TIMEOUT_S if job == "ready" else plan.bootstrap_timeout_s
        reason = f"took longer than {limit_s:g} s"
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit_s):
                    reason = await asyncio.shield(ended)
        finally:
            one.send(signal.SIGKILL)
        ok = reason == "exited with status 0"
        if not ok and job == "bootstrap":
            tail = process.log_tail(self.log)
            _log.warning("bootstrap failed; tried again", extra={"reason": reason, "log": str(self.log), "tail": tail})
        self._tell(ev.JobEnded(number, job, ok=ok))

    def _spawn_process(self, command: Any, on_exit: Callable[[str], None]) -> Process:
        environ = dict(self._environ)
        if self._record is not None:
            name, _, value = self._record.mark.partition("=")
            environ[name] = value
        output = process.open_log(self.log)
        try:
            return process.spawn(command, environ, output=output, on_exit=on_exit)
        finally:
            os.close(output)

    def _ended(self, number: int, reason: str) -> None:
        _log.info("Ray has gone", extra={"number": number, "reason": reason, "log": str(self.log)})
        self._tell(ev.RayExited(number, reason))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _digest(plan: RayPlan) -> str:
    content = [list(plan.start), dict(sorted(plan.env.items()))]
    return hashlib.sha256(msgspec.json.encode(content)).hexdigest()[:16]
