"""Releases: named sets of table versions, which are compared, verified and restored together."""
