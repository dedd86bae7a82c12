"""The ledger: what every run wrote, when, from what and with which result, kept as Delta tables."""
