"""Alerts to a webhook: jobs that are newly broken, tables that are overdue, and what has recovered."""
