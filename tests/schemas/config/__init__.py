"""Tests of the configuration: loading, messages, environment, documentation."""
