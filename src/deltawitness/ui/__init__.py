"""The terminal user interface of `deltawitness ui`: runs, writes, versions, lineage, cache and health.

It only reads. What it shows comes from the functions of :mod:`deltawitness.answers`.
"""
