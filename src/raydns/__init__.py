"""raydns: a DNS platform that runs as a cluster of Ray actors.

The code stands in four top-level folders of the repository, the four floors of the house
(``docs/architecture.md``); this package joins them under one import name.
"""

__version__ = "0.1.0"
