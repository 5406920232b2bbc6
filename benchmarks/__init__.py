"""Measures raydns beside other name servers, in one run on one machine; `make bench`.

Owns what is asked, of whom, and how it is counted. Starts everything it measures and ends it by process id; talks
to raydns as an operator does: by its command line and its control socket. Asserts nothing: it reports.
"""
