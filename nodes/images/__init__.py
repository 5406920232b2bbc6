"""Zone images as a machine maps them: reading, checking, and answering from them.

Never writes a mapped file and never parses a master file.
"""
