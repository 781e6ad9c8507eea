"""Codes, hashers, saved models."""
