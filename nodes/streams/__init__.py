"""Streams: length-prefixed batches over a Unix socket on the machine and over TLS between machines.

Owns framing, windows, reconnection and the keys derived from the cluster secret; knows nothing of DNS, but for
the one question by which the health monitor proves that a stream works.
"""
