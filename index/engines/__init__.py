"""Search engines over codes."""
