"""The report of a run: JSON, CSV, Markdown, plots, and one page.

    writing     results.json and results.csv; writes all files
    plots       what is drawn; svg: how it looks
    media       thumbnails and spectrograms of chosen queries and hits
    page        index.html and results.md, by templates
    abstract    the few figures at the top
    wording     numbers and methods in words

Names, captions and texts come from other people's data and are written as text everywhere.
"""

from __future__ import annotations

from bittern.benchmarks.eval.report.writing import write_report

__all__ = ["write_report"]
