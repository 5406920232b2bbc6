"""The zone shard: owns zones, reads their master files, stores them, makes their images, answers what comes up.

Owns everything of a zone before it is an image; may call ``raydns.nodes`` and ``raydns.schemas``. Ray appears in
``actor.py`` only. Never changes an image that it has published, and never publishes an empty one.
"""
