"""A run told: JSON, CSV, Markdown, plots, and one page."""
