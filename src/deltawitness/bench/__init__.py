"""The benchmark of write overhead: what `deltawitness bench` and `benchmarks/overhead.py` run."""
