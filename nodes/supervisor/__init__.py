"""``raydns node``: binds the sockets, runs the ingress and Ray, and brings both back.

Never imports ``ray`` and is in no query's path. In order of a machine's life: ``main`` (what commands call),
``sockets`` and ``holders`` (binding, and who is in the way), ``core`` (the state machine: what runs, what is started
next), ``node`` (its shell), ``process`` and ``procfs`` (children, and those that an earlier supervisor left), ``plan``
(what the cluster floor wants run), ``daemon`` and ``notify`` (terminals and systemd).
"""
