"""Benchmarks: each prints a ratio to a named peer or limit, measured in the same run."""
