"""Rows of Delta tables that a DataFusion session cannot read through the engine's own provider."""
