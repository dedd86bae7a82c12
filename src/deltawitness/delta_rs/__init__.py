"""The delta-rs API, observed: patches of the callables that write, and the table handles they cache.

`install` puts the patches of `patches` in place. A patched call passes `caller_keys` (the caller's
own commit metadata is checked), the observer (`deltawitness.observe`) and the engine; `whole_calls`
and `unreached` cover writes that fail or end before the engine is called. `receipts` reads the
version that a call has committed.
"""
