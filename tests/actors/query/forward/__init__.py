"""Tests of the query actor."""
