"""A provider on 127.0.0.1 that fails in every way of llm.md 2.7, chosen by the model's name; for faults only."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

KEY = "sk-canary-7f3e9d2c1b"
TEXT = "Hello from the model."


class FakeProvider:
    """Counts requests a model and keeps their headers and bodies."""

    def __init__(self) -> None:
        self.hits: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.bodies: list[dict[str, Any]] = []
        self.url = ""
        self.healthy = True
        """False: every model answers 500."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        model = body["model"]
        self.hits[model] += 1
        self.headers.append(dict(request.headers))
        self.bodies.append(body)
        if not self.healthy:
            return web.json_response({"error": {"message": "down", "code": 500}}, status=500)
        name, _, argument = model.partition(":")
        handler = getattr(self, f"_{name}", None)
        if handler is None:
            return web.json_response({"error": {"message": f"no model {model}"}}, status=404)
        response: web.StreamResponse = await handler(request, body, argument)
        return response

    # -- good --------------------------------------------------------------------------------------------

    async def _ok(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        usage = {"prompt_tokens": 11, "completion_tokens": 5}
        return web.json_response({"model": "ok-1", "choices": [{"message": {"content": TEXT}}], "usage": usage})

    async def _echo(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": body["messages"][-1]["content"]}}]})

    async def _stream(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        stream = await sse(request)
        await stream.write(b": OPENROUTER PROCESSING\n\n")
        for piece in ("Hello ", "from ", "the model."):
            await stream.write(event({"model": "stream-1", "choices": [{"delta": {"content": piece}}]}))
        await stream.write(event({"choices": [{"delta": {"content": None}, "finish_reason": "stop"}]}))
        await stream.write(event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}}))
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def _slow(self, request: web.Request, body: dict[str, Any], argument: str) -> web.StreamResponse:
        await asyncio.sleep(float(argument))
        return await self._ok(request, body, "")

    async def _drip(self, request: web.Request, body: dict[str, Any], argument: str) -> web.StreamResponse:
        stream = await sse(request)
        for piece in TEXT.split(" "):
            await stream.write(event({"choices": [{"delta": {"content": piece + " "}}]}))
            await asyncio.sleep(float(argument))
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def _utf8split(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        stream = await sse(request)
        data = (
            b'data: {"choices":[{"delta":{"content":"na\xc3\xafve \xe2\x82\xac5 \xf0\x9f\x98\x80 caf\xc3\xa9"}}]}\n\n'
        )
        for octet in data:  # each octet in a segment of its own
            await stream.write(bytes((octet,)))
            await asyncio.sleep(0)
        await stream.write(b"data: [DONE]\n\n")
        return stream

    async def _huge(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        stream = await sse(request)
        try:
            for _number in range(10_000):
                await stream.write(event({"choices": [{"delta": {"content": "word " * 20}}]}))
        except ConnectionError:
            pass  # the client has had enough, as it should
        return stream

    async def _ctrl(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        text = "\x1b[31mred\x1b[0m\x00 \x1b]0;title\x07**bold**\r\nnext \x9b2J\u202eline"
        return web.json_response({"choices": [{"message": {"content": text}}]})

    async def _token(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": "v=spf1 +all"}}]})

    async def _keepws(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": "\n\n  " + TEXT + " \n"}}]})

    async def _think(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": f"<think>hm\nhm</think>\n{TEXT}"}}]})

    async def _length(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": TEXT}, "finish_reason": "length"}]})

    # -- bad ---------------------------------------------------------------------------------------------

    async def _r429(self, request: web.Request, body: dict[str, Any], argument: str) -> web.StreamResponse:
        return web.json_response({"error": {}}, status=429, headers={"Retry-After": argument or "7"})

    async def _r429reset(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        reset = str(int((time.time() + 20) * 1000))
        return web.json_response({"error": {}}, status=429, headers={"X-RateLimit-Reset": reset})

    async def _r429once(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        if self.hits["r429once"] == 1:
            return web.json_response({"error": {}}, status=429, headers={"Retry-After": "3"})
        return await self._ok(request, body, "")

    async def _e400reasoning(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        if "reasoning" in body or "reasoning_effort" in body:
            return web.json_response({"error": {"message": "unknown field reasoning"}}, status=400)
        return await self._ok(request, body, "")

    async def _status(self, request: web.Request, body: dict[str, Any], argument: str) -> web.StreamResponse:
        message = f"secret body {request.headers.get('Authorization', '')}"
        return web.json_response({"error": {"message": message}}, status=int(argument))

    async def _err200(self, request: web.Request, body: dict[str, Any], argument: str) -> web.StreamResponse:
        return web.json_response({"error": {"message": "upstream", "code": int(argument)}})

    async def _midsse(self, request: web.Request, body: dict[str, Any], argument: str) -> web.StreamResponse:
        stream = await sse(request)
        if not argument:
            await stream.write(event({"choices": [{"delta": {"content": "Half an ans"}}]}))
        await stream.write(event({"error": {"code": int(argument or 502), "message": "provider disconnected"}}))
        return stream

    async def _cut(self, request: web.Request, body: dict[str, Any], argument: str) -> web.StreamResponse:
        stream = await sse(request)
        if not argument:
            await stream.write(event({"choices": [{"delta": {"content": "Half an ans"}}]}))
            await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()  # type: ignore[attr-defined]
        return stream

    async def _noend(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        stream = await sse(request)
        await stream.write(event({"choices": [{"delta": {"content": "Half an ans"}}]}))
        return stream

    async def _nullc(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.json_response({"choices": [{"message": {"content": None, "reasoning": "I think…"}}]})

    async def _nochoices(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.json_response({"choices": []})

    async def _html(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.Response(text="<html>Please log in</html>", content_type="text/html")

    async def _redirect(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"{self.url}/elsewhere"})

    async def _badjson(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        return web.Response(text='{"choices": [', content_type="application/json")

    async def _badsse(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        stream = await sse(request)
        await stream.write(b"data: {nonsense\n\n")
        return stream

    async def _hang(self, request: web.Request, body: dict[str, Any], _: str) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()


async def sse(request: web.Request) -> web.StreamResponse:
    """A started stream of events."""
    stream = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
    await stream.prepare(request)
    return stream


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(body)}\n\n".encode()


@asynccontextmanager
async def running() -> AsyncIterator[FakeProvider]:
    """The provider, listening."""
    fake = FakeProvider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", fake.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    fake.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield fake
    finally:
        await runner.cleanup()


@asynccontextmanager
async def resetting() -> AsyncIterator[tuple[str, list[int]]]:
    """A server that answers the first request of each connection and resets it at the second (``rstidle``)."""
    answered: list[int] = []
    body = json.dumps({"choices": [{"message": {"content": TEXT}}]}).encode()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            answered.append(1)
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()
            await reader.read(1)
            writer.transport.abort()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1", answered
    finally:
        server.close()
