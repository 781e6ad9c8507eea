"""Codes (pack, unpack, distances), training-free hashers, saved models."""
