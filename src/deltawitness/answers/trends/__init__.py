"""What is late, empty, unusual, broken or slower than before, learned from the ledger's history."""
