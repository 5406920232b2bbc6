"""The embedded model as a provider: its process is started, watched, killed and started again here.

stopped ──start──▶ starting ──its address──▶ running ──end, or silent──▶ waiting (1 s doubling to 60 s) ──▶ starting
                      └── what is wrong with it ─────────────────────────▶ waiting
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from raydns.schemas.config.llm import EmbeddedConfig

from .completion import Completion
from .faults import Fault, ProviderError
from .provider import Call, ClientOptions, OpenAIProvider
from .secret import Secret

log = logging.getLogger(__name__)

WATCHDOG_S: Final = 30.0
START_TIMEOUT_S: Final = 60.0
BACK_OFF_S: Final = (1.0, 60.0)
STEADY_S: Final = 60.0
"""A process that ran that long may be started again at once: its end was no boot loop."""
_MODULE: Final = "raydns.actors.llm.embedded_server"
_FAULTS: Final = {
    "WeightsAbsentError": Fault.EMBEDDED_ABSENT,
    "ModelPathError": Fault.EMBEDDED_PATH,
    "WeightsDamagedError": Fault.EMBEDDED_CHECKSUM,
}


class EmbeddedProcess:
    """Owns one child process; all methods belong to one event loop.

    Args:
        config: of the model.
        back_off_s: shortest and longest pause before another start.
    """

    def __init__(self, config: EmbeddedConfig, back_off_s: tuple[float, float] = BACK_OFF_S) -> None:
        self._config = config
        self._back_off = back_off_s
        self._pause = back_off_s[0]
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._known = asyncio.Event()  # set while the last start's outcome is known and stands
        self.running = False
        """It has told its address and has not ended since."""
        self._fault: Fault = Fault.EMBEDDED_DOWN
        self._next_start = 0.0
        self.url = ""
        self.key = Secret("")
        self.restarts = 0

    @property
    def pid(self) -> int:
        """Of the running child, 0 without one."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    @property
    def rss_octets(self) -> int:
        """Memory of the child."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") if self.pid else 0
        except (OSError, IndexError, ValueError):
            return 0

    def start(self) -> None:
        """Starts it unless it is started; returns at once."""
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), name="embedded-model")

    async def wait_ready(self, timeout_s: float) -> None:
        """Waits until it can be asked.

        Raises:
            ProviderError: it cannot start, or not in time; says which.
        """
        self.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._known.wait()
        if not self.running:
            down = self._fault is Fault.EMBEDDED_DOWN
            wait_s = max(1.0, self._next_start - time.monotonic()) if down else 0.0
            raise ProviderError(self._fault, retry_after_s=wait_s)

    def kill(self, why: str) -> None:
        """Ends the child at once; it is started again after a pause."""
        if self.pid and self._process is not None:
            log.warning("llm.embedded_killed", extra={"why": why, "pid": self.pid})
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def close(self) -> None:
        """Ends the child and starts no other."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
            self._keeper = None
        await self._end()  # the cancellation may have met the keeper while it was ending a life

    async def _keep(self) -> None:
        """Starts the child again and again, until it is cancelled."""
        while True:
            began = time.monotonic()
            try:
                await self._run()
            except OSError as error:
                log.error("llm.embedded_not_started", extra={"problem": str(error)})
                self._fault = Fault.EMBEDDED_DOWN
                self._known.set()
            finally:
                self.running = False
                await self._end()
            self.restarts += 1
            if time.monotonic() - began > STEADY_S:
                self._pause = self._back_off[0]
            self._next_start = time.monotonic() + self._pause
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, self._back_off[1])

    async def _run(self) -> None:
        """One life of the child: until it ends by itself or is killed."""
        self.key = Secret(secrets.token_urlsafe(24))
        environment = dict(os.environ, OMP_WAIT_POLICY="passive", OMP_NUM_THREADS=str(self._config.threads))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", _MODULE,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment,
        )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(self._options())
        with contextlib.suppress(ConnectionError):
            await self._process.stdin.drain()
        answer: dict[str, str] = {}
        with contextlib.suppress(TimeoutError, ValueError):
            async with asyncio.timeout(START_TIMEOUT_S):
                answer = json.loads(await self._process.stdout.readline() or b"{}")
        if "url" in answer:
            self.url = answer["url"]
            self._fault = Fault.EMBEDDED_DOWN
            log.info("llm.embedded_ready", extra={"pid": self._process.pid})
            self.running = True
            self._known.set()
            await self._process.wait()
            self._known.clear()  # whoever asks now waits for the next life
            log.warning("llm.embedded_ended", extra={"status": self._process.returncode})
            return
        self._fault = _FAULTS.get(answer.get("error", ""), Fault.EMBEDDED_DOWN)
        self._known.set()
        log.error("llm.embedded_unusable", extra={"problem": answer.get("problem", "it ended without a word")})

    def _options(self) -> bytes:
        fields = self._config.model_dump(include={"model_path", "sha256", "threads", "slots", "context"})
        return json.dumps({**fields, "key": self.key.reveal()}).encode() + b"\n"

    async def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await process.wait()
        # Both pipes are seen to their end, or their transports would outlive the loop.
        if process.stdin is not None:
            process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await process.stdin.wait_closed()
        if process.stdout is not None:
            await process.stdout.read()
        self._process = None


class EmbeddedProvider:
    """A ``Provider`` on the embedded process: greedy, labelled by the core, watched for silence.

    Args:
        config: of the model.
        total_timeout_s: of one call.
        watchdog_s: a process that was asked and said nothing that long is killed.
        process: the process, where a test brings its own.
    """

    name = "embedded"

    def __init__(
        self,
        config: EmbeddedConfig,
        total_timeout_s: float,
        watchdog_s: float = WATCHDOG_S,
        process: EmbeddedProcess | None = None,
    ) -> None:
        self.process = process or EmbeddedProcess(config)
        self._total_timeout_s = total_timeout_s
        self._watchdog_s = min(watchdog_s, total_timeout_s)
        self._client: OpenAIProvider | None = None
        self._client_of: Secret | None = None  # the key of the life that the client talks to
        self._last_token = 0.0

    def start(self) -> None:
        """Loads the model before the first question."""
        self.process.start()

    async def complete(self, call: Call, on_text: Callable[[str], None], spend: Callable[[], bool]) -> Completion:
        """See ``provider.Provider``."""
        await self.process.wait_ready(self._total_timeout_s)
        client = await self._connected()
        asked = time.monotonic()

        def text(piece: str) -> None:
            self._last_token = time.monotonic()
            on_text(piece)

        watchdog = asyncio.get_running_loop().create_task(self._watch(asked, self.process.pid))
        try:
            completion = await client.complete(call, text, lambda: False)
            # The library names a model by its file; where that lies is nobody's business.
            completion.model = Path(completion.model).stem
            return completion
        except ProviderError as error:
            if error.fault in {Fault.CONNECT, Fault.CUT, Fault.UNAUTHORISED}:
                # Nobody else serves there: the process is ending, or another one has its port.
                raise ProviderError(Fault.EMBEDDED_DOWN, retry_after_s=1.0, text_came=error.text_came) from None
            raise
        finally:
            watchdog.cancel()

    async def close(self) -> None:
        """Ends the process."""
        if self._client is not None:
            await self._client.close()
        await self.process.close()

    async def _watch(self, asked: float, pid: int) -> None:
        """Kills the process when nobody's question has got a token for too long."""
        while True:
            silent_s = time.monotonic() - max(asked, self._last_token)
            if silent_s >= self._watchdog_s:
                if self.process.pid == pid:
                    self.process.kill(f"no token for {silent_s:.0f} s")
                return
            await asyncio.sleep(self._watchdog_s - silent_s)

    async def _connected(self) -> OpenAIProvider:
        if self._client is None or self._client_of != self.process.key:
            if self._client is not None:
                await self._client.close()
            self._client_of = self.process.key
            self._client = OpenAIProvider(
                ClientOptions(self.process.url, self.process.key, 3.0, self._total_timeout_s, keep_alive=False)
            )
        return self._client
