"""Verification: recompute an entry over the input versions that it was made from, and compare the rows."""
