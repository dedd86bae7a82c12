"""Integrations of engines: runs of a workflow's executions, observed workers of a cluster. Each needs its engine."""
