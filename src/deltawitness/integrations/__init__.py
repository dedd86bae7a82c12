"""Workflow engines: their executions as runs. Each module needs its engine, an extra of the same name."""
