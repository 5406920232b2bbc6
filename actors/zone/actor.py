"""The zone shard's Ray shell.

Hard state: the zones' contents, in LMDB below the state directory, and their images. Soft state: the table of mapped
images, finished answers. Shares the fate of its machine (the disk is there); Ray restarts it there, on the same
socket, with the zones that it had. ``load`` succeeds when the zone is on disk and answered from here, and changes
nothing when it fails; loading the same text again changes nothing either. Queries arrive by stream; one answer each.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from raydns.nodes import garbage, logs
from raydns.nodes.known import Known
from raydns.nodes.paths import StateDir
from raydns.nodes.streams import secret
from raydns.nodes.streams.frames import Role
from raydns.nodes.streams.server import Responder, StreamServer, Tls
from raydns.nodes.streams.thread import LoopThread
from raydns.nodes.tracing import Tracer
from raydns.schemas import batch, names
from raydns.schemas.batch import NO_SPAN, AnswerItem, Outcome, QueryItem
from raydns.schemas.cluster import Endpoint, Snapshot

from .core import ZoneShardCore
from .store import ZoneStore

log = logging.getLogger(__name__)

CALL_TIMEOUT_S: Final = 5.0
SPAN: Final = "zone.answer"


class ZoneActor:
    """See the head of this file. Plain class with sync methods: whoever creates it applies ``ray.remote``.

    Args:
        state_dir: the machine's state directory.
        endpoint: msgpack of this actor's own ``Endpoint``.
    """

    def __init__(self, state_dir: str, endpoint: bytes) -> None:
        directory = StateDir(state_dir)
        self._me = me = msgspec.msgpack.decode(endpoint, type=Endpoint)
        self._known = Known(directory)
        config = self._known.config()
        logs.setup(config.telemetry.log, me.actor)
        self._trace = config.telemetry.trace
        self._tracer = Tracer("zone", str(me.index), self._trace)
        self._store = ZoneStore(directory.zone_store(me.index), me.index)
        self._core = ZoneShardCore(
            me.index, self._store, self._known, now_s=time.time, now_us=lambda: time.time_ns() // 1000
        )
        snapshot = self._known.load()
        self._version = snapshot.version.packed if snapshot is not None else 0
        self._core.start(snapshot.zones if snapshot is not None else ())
        tls = Tls(me.host, me.port, secret.server_context(secret.load(directory.secret))) if me.port else None
        self._server = StreamServer(
            self._on_queries, path=Path(me.path) if me.path else None, tls=tls, identity=me.actor, role=Role.ZONE
        )
        self._drained = False
        self._thread = LoopThread(me.actor)
        self._thread.run(self._server.start(), CALL_TIMEOUT_S)
        garbage.settle()
        log.info("zone_shard_started", extra={"actor": me.actor, "zones": len(self._core.entries()), "path": me.path})

    # -- zones: called by the controller -----------------------------------------------------------------

    def load(self, apex: bytes, text: str, origin_file: str) -> bytes:
        """Reads a master file and serves the zone; msgpack of its ``ZoneEntry``.

        Raises:
            MasterFileError: with every error of the file; what was served before still is.
            StateError: the disk cannot take it; likewise.
        """
        entry = self._core.load(apex or None, text, origin_file)
        self._thread.call_soon(self._core.close_retired)
        return msgspec.msgpack.encode(entry)

    def zones(self) -> bytes:
        """Every zone of this shard: msgpack of ``list[ZoneEntry]``."""
        return msgspec.msgpack.encode(self._core.entries())

    def show(self, apex: bytes) -> bytes:
        """What is known of one zone: msgpack of a map with ``entry``, ``file``, ``loaded_at_s`` and ``warnings``."""
        zone = self._core.zone(apex)
        if zone is None:
            return msgspec.msgpack.encode({})
        return msgspec.msgpack.encode(
            {
                "name": names.to_text(zone.entry.apex),
                "entry": msgspec.to_builtins(zone.entry, builtin_types=(bytes,)),
                "file": zone.origin_file,
                "loaded_at_s": zone.loaded_at_s,
                "warnings": zone.warnings,
            }
        )

    def unload(self, apex: bytes) -> bool:
        """Forgets a zone; whether it was here."""
        found = self._core.unload(apex)
        self._thread.call_soon(self._core.close_retired)
        return found

    # -- what every actor has ----------------------------------------------------------------------------

    def ready(self) -> bool:
        """Whether it listens: the constructor has not returned before it did."""
        return True

    def refresh(self) -> int:
        """Re-reads what is known: tracing, images, zones that the cluster names as ours; its packed version."""
        snapshot: Snapshot | None = self._known.load()
        if snapshot is None:
            return self._version
        trace = self._known.config().telemetry.trace
        if trace != self._trace:
            self._trace, self._tracer = trace, Tracer("zone", str(self._me.index), trace)
        self._core.mend()
        self._core.adopt(snapshot.zones)
        self._thread.call_soon(self._core.close_retired)
        self._version = snapshot.version.packed
        return self._version

    def statistics(self) -> dict[str, float]:
        """Counts since start, and what is held now."""
        return {**self._core.statistics(), "pid": float(os.getpid())}

    def metrics(self) -> bytes:
        """Msgpack of ``list[Family]``."""
        return msgspec.msgpack.encode(self._core.metrics.families())

    def drain(self, timeout_s: float) -> bool:
        """Stops listening and sends what was answered; ``True``: none was lost. It serves no more afterwards."""
        if self._drained:
            return True
        self._drained = True
        drained = self._thread.run(self._server.close(timeout_s), timeout_s + CALL_TIMEOUT_S)
        self._thread.stop()
        self._store.close()
        return drained

    # -- inside, in the data plane's thread --------------------------------------------------------------

    def _on_queries(self, queries: list[QueryItem], responder: Responder) -> None:
        answer = self._core.answer
        sampled: list[tuple[QueryItem, AnswerItem]] = []
        for item in queries:
            made = answer(item)
            responder.answer(made)
            if item.sampled:
                sampled.append((item, made))
        for item, made in sampled:
            self._record(item, made)

    def _record(self, item: QueryItem, made: AnswerItem) -> None:
        stamp = batch.stamps(made.rooms)[-1]
        failed = stamp.outcome == Outcome.FAILED
        self._tracer.record(
            SPAN,
            kind="server",
            trace_id=item.trace_id,
            span_id=self._tracer.new_span_id(),
            parent_id=item.span_id if item.span_id != NO_SPAN else b"",
            start_us=stamp.start_us,
            end_us=stamp.start_us + stamp.duration_us,
            attributes={"raydns.actor": self._me.actor, "dns.response_code": made.message[3] & 0xF},
            error=(made.ede_text or "failed") if failed else "",
        )
