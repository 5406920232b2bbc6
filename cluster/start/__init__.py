"""From nothing to a running cluster: how Ray is started on a machine, and how the controller comes into it.

Only writes plans for the supervisor and runs once; it keeps nothing running itself.
"""
