"""Hides numpy from the programs that tests start: `programs_without_pandas` in tests/conftest.py."""

msg = "numpy is hidden from the programs of tests"
raise ModuleNotFoundError(msg, name="numpy")
