"""Retrieval and speed benchmarks."""
