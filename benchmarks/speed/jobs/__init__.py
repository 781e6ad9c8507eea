"""Batch jobs: the pipeline compared with its network, commits, restarts, workers of Ray."""
