"""Every Delta write, witnessed."""
