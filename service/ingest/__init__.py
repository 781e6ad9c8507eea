"""Media into codes: the pipeline of every job.

    list → read → decode → network (batched) → hash → commit

items.py          one item: read, compared with what is stored, decoded, embedded
prefetch.py       list, read and decode in threads, within bounds of memory
embedding.py      list to network, as one iterator
commit.py         hash and commit, in a thread beside the network; into an archive
parquet_parts.py  into a Parquet file
report.py         counts, failures and rates of a job
"""
