"""Results as HTML for notebooks: tables and drawings without a script, in the colours of the notebook."""
