"""A thread with an event loop of its own, in which an actor's data plane lives beside Ray's threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop where it is installed, asyncio's own otherwise."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopThread:
    """Runs from construction until ``stop``; all methods may be called from any thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = new_event_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stopped = False
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Runs a coroutine in the loop and waits for its result; not to be called from the loop's own thread.

        Raises:
            TimeoutError: it took longer than ``timeout_s`` and was cancelled.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("LoopThread.run would wait for itself")
        if self._stopped:
            coroutine.close()
            raise RuntimeError(f"the loop {self.name} has stopped")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        """Starts a coroutine; what it raises is logged."""
        if self._stopped:
            coroutine.close()
            return
        self.loop.call_soon_threadsafe(self._start, coroutine)

    def call_soon(self, function: Callable[[], object]) -> None:
        """Calls a function in the loop; after ``stop`` it does nothing."""
        with contextlib.suppress(RuntimeError):  # the loop was closed between two instructions
            if not self._stopped:
                self.loop.call_soon_threadsafe(function)

    def stop(self, timeout_s: float = 5.0) -> bool:
        """Cancels what runs, ends the loop and joins the thread; ``False`` if it did not end in time."""
        if not self._stopped:
            self._stopped = True
            self.loop.call_soon_threadsafe(self.loop.stop)
        if threading.current_thread() is self._thread:
            return False
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _start(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_failed", extra={"loop": self.name}, exc_info=error)

    def _main(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            pending = asyncio.all_tasks(self.loop)
            for task in pending:
                task.cancel()
            if pending:
                self.loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        finally:
            self.loop.close()
