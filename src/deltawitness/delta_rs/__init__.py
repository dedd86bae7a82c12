"""Patches of the delta-rs callables that write, and a cache of table handles for them.

`install` installs the patches of `patches`. A patched call checks the caller's own commit metadata
(`caller_keys`), opens the write at the observer (`deltawitness.observe`), calls the engine, and records
the result. `whole_calls` and `unreached` cover writes that fail or end before the engine is called.
`receipts` reads the version that a call has committed.
"""
