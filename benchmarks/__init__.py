"""lpmangle against other ways to rename the same symbols: `python -m benchmarks`."""
