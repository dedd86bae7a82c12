"""Run a program against clones of its tables, and later for real if the tables have not changed."""
