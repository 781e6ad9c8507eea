"""What is compared: float vectors, and codes of several makings."""
