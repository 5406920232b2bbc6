"""What runs on a machine without Ray: supervisor, ingress, engine, streams, images, what was last known.

May import ``raydns.schemas``; never imports ``ray``, so that a machine answers what it holds without it.
"""
