"""Arrays of derived files."""
