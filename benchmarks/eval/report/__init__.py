"""A run told: JSON, CSV, Markdown, plots, and one page.

    writing     results.json and results.csv, and all files into their places
    markdown    results.md
    plots       SVG, drawn from the same rows
    media       photographs and spectrograms of chosen queries, small enough for a page
    page        index.html: everything in one file that asks the network for nothing

Names, captions and texts come from other people's data and are written as text everywhere.
"""

from __future__ import annotations

from bittern.benchmarks.eval.report.writing import write_report

__all__ = ["write_report"]
