"""What the processes of a ledger do now: running writes, finished writes, and processes that have died."""
