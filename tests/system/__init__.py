"""A whole node with Ray, asked by real clients; see ``node.py`` for how it is started and ended."""
