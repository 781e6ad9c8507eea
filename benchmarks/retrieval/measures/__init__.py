"""Retrieval measures over places, one small file each."""
