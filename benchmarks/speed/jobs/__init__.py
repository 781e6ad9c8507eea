"""Batch jobs: the pipeline against its network, commits, restarts, workers of Ray."""
