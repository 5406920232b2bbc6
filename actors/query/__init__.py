"""The query actor: takes a miss through one pipeline, under one budget.

Owns the order *names served here → forward rules → LLM names → refuse*, the forwarder and what is known of
upstream servers. May call zone shards (streams), upstream servers (UDP, TCP) and LLM actors (through a port).
Never keeps an answer: that is the cache shard's.
"""
