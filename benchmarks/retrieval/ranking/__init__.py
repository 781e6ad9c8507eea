"""Distances to places: windows, ties, depth, re-ranking."""
