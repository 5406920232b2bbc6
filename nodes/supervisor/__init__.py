"""``raydns node``: binds the sockets, runs the ingress and Ray, and brings both back.

Never imports ``ray`` and is in no query's path.
"""
