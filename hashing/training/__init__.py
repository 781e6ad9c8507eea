"""Training of heads: settings, the loop, checkpoints, logs, embeddings streamed from disk.

Knows hashing only. Whatever is trained (heads on precomputed embeddings, or whole towers with
their media) reaches the loop as an `Objective`.
"""
