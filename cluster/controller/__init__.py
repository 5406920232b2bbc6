"""The controller: compares what is wanted with what is there, and issues commands until they agree.

``core`` decides and knows neither Ray nor clocks; ``actor`` is its shell. It is in no query's path: its death
stops changes, never answers. It never publishes a state that it did not build on the newest one that its
machines remember.
"""
