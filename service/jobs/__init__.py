"""Batch jobs: media in, codes out, whatever happens meanwhile.

spec.py      what is to be done, as values that can be written down
report.py    what became of it, while it runs and afterwards
"""
