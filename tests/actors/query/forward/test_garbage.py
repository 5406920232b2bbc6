"""A miss leaves nothing behind that only the garbage collector finds: its passes stop the whole query actor."""

from __future__ import annotations

import asyncio
import gc

from raydns.actors.query.apexes import Apexes
from raydns.actors.query.pipeline import Installed, Pipeline
from raydns.schemas.batch import AnswerItem, QueryItem
from tests.actors.query.kit import ScriptedUpstream, config, forwarding, good, item

MISSES = 200


class NoZones:
    """No zone shard."""

    async def ask(self, shard: int, item: QueryItem) -> AnswerItem | None:
        """Never asked here."""
        raise AssertionError((shard, item))


def test_misses_make_no_cycles() -> None:
    """Two hundred forwarded names, and nothing for the collector to do but what the loop itself leaves."""

    async def main() -> int:
        upstream = await ScriptedUpstream(lambda query, _: [(0.0, good(query))]).start(tcp=False)
        async with forwarding(config((".", [upstream.address]))) as forwarder:
            installed = Installed(1, Apexes(), forwarder, None)
            pipeline = Pipeline(installed, NoZones(), identity="query:0", index=0, clock=loop.time, unix_us=lambda: 1)
            await pipeline.resolve(item("first.example."), loop.time())  # opens the sockets
            gc.collect()
            gc.disable()
            try:
                for number in range(MISSES):
                    answer = await pipeline.resolve(item(f"n{number}.example."), loop.time())
                    assert answer.message[3] & 0xF == 0
                return gc.collect()
            finally:
                gc.enable()
                await upstream.stop()

    loop = asyncio.new_event_loop()
    try:
        assert loop.run_until_complete(main()) < MISSES  # before it was rid of them: 26 objects a miss
    finally:
        loop.close()
