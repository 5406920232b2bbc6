"""``raydns``, the command line: starts a machine, asks its processes over their control sockets, shows what they say.

May use everything below; imports ``ray`` nowhere, so that a command answers in a fraction of a second and also
where Ray is the thing that is broken. It never decides anything for the cluster.
"""
