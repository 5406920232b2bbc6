"""The ingress: one process a machine that answers DNS from what the machine holds and sends misses up.

Owns the clients' sockets, admission, L1 and the waiting for answers from above. May use streams, images and what was
last known; never imports ``ray`` and never decides for the cluster. ``README.md`` says which file does what.
"""
