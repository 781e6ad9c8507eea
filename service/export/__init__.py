"""Observations and hits as files that other programs read.

rows.py      the rows, of an archive, of hits, of observations in memory
writers.py   one writer per kind of file
files.py     a file chunk by chunk, to a disk or over the wire
folder.py    copies of the media with a manifest: the one kind that is a folder
"""
