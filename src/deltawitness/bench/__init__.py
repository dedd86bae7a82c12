"""The benchmark of the write overhead, for `deltawitness bench` and `benchmarks/overhead.py`."""
