"""Integrations of workflow engines: open a run for each execution. Each needs its engine (an extra)."""
