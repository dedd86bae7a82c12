"""The health of tables: what `doctor` checks, its findings, and the commands that mend them."""
