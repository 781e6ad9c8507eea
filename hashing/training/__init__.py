"""Training of heads: settings, loop, checkpoints, logs, embeddings streamed from disk.

The loop trains an `Objective`: heads on precomputed embeddings, or towers with their media.
"""
