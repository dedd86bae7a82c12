"""Integrations of engines: a run for each execution of a workflow, observed workers of a cluster."""
