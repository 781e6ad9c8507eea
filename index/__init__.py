"""Nearest neighbours over codes, the observation store, the archive that joins the two."""
