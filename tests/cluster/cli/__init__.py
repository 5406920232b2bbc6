"""Tests of the command line, against a node whose control sockets answer what a test wants."""
