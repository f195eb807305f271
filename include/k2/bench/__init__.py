"""Benchmarks: each measures, and returns a Report of one shape."""
