"""Batch jobs: media in, codes out, whatever happens meanwhile.

spec.py       what is to be done, as values that can be written down
report.py     what became of it, while it runs and afterwards
run.py        runs one: into an archive, into a file
reencode.py   an archive's media anew, with another model
ray.py        workers on one machine or several; units.py is what travels between them
queue.py      the jobs of a server, one after another; record.py writes them down
allowed.py    which of its own media a server may code because a call asks for it
serving.py    the jobs of `bittern serve`; servicer.py, convert.py are its side of the wire
"""
