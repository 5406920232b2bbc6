"""What crosses between the parts: names, wire views, batches, images, configuration, cluster state.

Owns the formats and nothing that runs: no sockets, no clocks, no files beyond reading a configuration.
May import nothing of ours, and never ``ray``.
"""
