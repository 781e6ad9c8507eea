"""Batch jobs that code media; resumable after any interruption.

description.py   the description of a job
run.py           runs a job, and writes its report
model_choice.py  chooses its model
indexing.py      codes a source into an archive
encoding.py      codes a source into a Parquet file
reencode.py      codes an archive again, with another model
ray.py           runs the network in several processes or on several machines
serving.py       the jobs of a server; queue.py runs them, record.py stores them
"""
