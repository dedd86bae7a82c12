"""Hides pandas from the programs that tests start: `programs_without_pandas` in tests/conftest.py."""

msg = "pandas is hidden from the programs of tests"
raise ModuleNotFoundError(msg, name="pandas")
