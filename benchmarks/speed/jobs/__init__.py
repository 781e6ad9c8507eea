"""Batch jobs measured: the pipeline against its network, commits, restarts, workers.

media.py       photographs of 12 megapixels and hours of sound, made up
pipeline.py    files to codes, against the bare network
archives.py    commits, opening and disk use against the size of the archive
upkeep.py      many small commits
restart.py     what a kill costs
engines.py     local against Ray
run.py         all of it
"""
