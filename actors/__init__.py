"""One folder an actor, and the ring: a pure core in plain modules, a thin Ray shell in ``actor.py``.

May import ``raydns.nodes`` and ``raydns.schemas``; only files named ``actor.py`` import ``ray``.
"""
