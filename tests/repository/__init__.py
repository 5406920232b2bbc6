"""Tests of the repository itself: layout, packaging, Makefile, examples, documentation."""
