"""Items and queries through the towers, once: shards on disk, kept by digest.

    encoding.py      embed_items: items of a task, to `ShardedRows`
    asking.py        embed_asked: queries, one embedding each
    work.py          the items of one shard through a tower
    progress.py      how far it has come; room on the disk
    contents.py      what tells whether something was embedded before
    shards.py        one shard on disk: written whole, and trusted only when it proves to be
    tensor_files.py  safetensors from outside, checked before they are mapped
    rows.py          ShardedRows: shard after shard, one tile in memory
    arrays.py        ArrayRows: everything in memory
    precomputed.py   PrecomputedRows: embeddings that were made elsewhere
    base.py          what those who rank read

The cache is a folder of folders, one per tower (its digest, its windowing, its modality):

    CACHE/
    └── image-3f2a90c1d7e45b68/
        ├── <digest>.safetensors    embeddings float32 [rows, dim], owners int64 [rows] (place
        │                           within the shard), spans float32 [rows, 2] (NaN: none)
        └── <digest>.json           items, rows, dim, XXH3 of the file beside it, failed items

A shard is named by the digest of what it was made from, so it is found again by every task that
has the same items at the same places of a shard, and a file that has changed costs one shard.
Nothing of a shard depends on how far an earlier run came. Remove what you like: it is made again.
"""
