"""The ingress: one process a machine that answers DNS from what the machine holds and sends misses up.

May use streams, images and what was last known; never imports ``ray`` and never decides for the cluster.
"""
