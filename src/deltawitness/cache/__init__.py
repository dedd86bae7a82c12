"""The Delta-backed cache: query results stored as Delta tables and served while their inputs are unchanged.

`delta_cache` is the public class. A lookup computes a fingerprint (`fingerprint`), compares it with
the stored entry (`entries`), and serves the entry or recomputes it (`read_through`);
`registration` registers the result in the session. `kinds` has the entries that are not queries,
`verify` recomputes entries and compares.
"""
