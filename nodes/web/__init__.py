"""The HTTP service of a machine (port 8053): /metrics, /health, /ready, /status, and one live page.

Lives in the supervisor's process and asks the others over their control sockets, at most once a second each; it is
in no query's path and changes nothing. It is the only room that imports aiohttp, and it never calls Ray.
"""

from __future__ import annotations

from .server import WebServer

__all__ = ["WebServer"]
