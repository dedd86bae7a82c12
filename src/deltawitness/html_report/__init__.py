"""The report of a ledger as one HTML file: tables, charts and a small script, without a request."""
