"""Shallow clones of tables in a scratch folder, and the redirection of a program's tables to them."""
