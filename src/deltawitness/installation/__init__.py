"""A description of this installation for a bug report: versions, seams, settings, extras and ledger."""
