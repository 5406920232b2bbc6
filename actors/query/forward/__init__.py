"""Forwarding: upstream servers, how they are chosen, asked, believed and given up.

Owns sockets to upstreams, the check of every reply and the circuit breakers. Calls nothing of ours but schemas and
metrics. Never looks at who asked: rights were decided before a question comes here.
"""
