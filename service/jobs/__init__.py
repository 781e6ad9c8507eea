"""Batch jobs: media in, codes out, resumable after any interruption.

description.py   one job, validated once
run.py           runs it, and writes its report
model_choice.py  the model that it uses
indexing.py      into an archive
encoding.py      into a Parquet file
reencode.py      the media of an archive again, with another model
ray.py           workers on one machine or several
serving.py       the jobs of a server; queue.py runs them, record.py keeps them on disk
"""
