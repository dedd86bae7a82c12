"""Answers to questions about writes, from the ledger and the logs of tables: who wrote what, when and why."""
