"""The cache shard: owner of a range of names for the whole cluster (L2, single flight, failures, prefetch).

Owns what is known of its names and who waits for them. May call the query actors and other shards by stream;
never decides about a client: what it keeps is unfiltered and the same for all who share its key.
"""
