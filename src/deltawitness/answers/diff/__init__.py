"""Differences between two versions of tables, and between two runs."""
