"""Tests of media decoding, towers and the catalogue."""
