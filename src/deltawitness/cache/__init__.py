"""The Delta-backed cache: computed results kept as Delta tables, served for as long as they are true."""
