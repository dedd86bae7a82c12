"""Fingerprints: everything that the result of a query depends on, in comparable form.

`plan` walks the plan of a query and collects its inputs (`inputs`, `scans`, `udfs`), the settings
and versions of the engine (`environment`) and the details that the plan text omits
(`plan_details`). `model` holds the result; `diff` says why two fingerprints differ.
"""
