"""The agent: the one actor on every machine that ties its ingress, its actors and the controller together.

Holds the long poll, writes what the machine last knew (``nodes.known``), tells ingress and actors to re-read it,
reports load, and relays an operator's commands from the machine's control socket. It may call the ingress, the
actors of its machine and the controller; it is in no query's path.
"""
