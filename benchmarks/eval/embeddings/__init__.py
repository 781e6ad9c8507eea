"""Items and queries through the towers, once: shards on disk, named by digest.

    encoding.py      embed_items and embed_queries
    shards.py        one shard on disk, checked before it is trusted; `ShardedRows` over many
    rows.py          the interface `EmbeddedRows`; windows as items
    precomputed.py   `PrecomputedRows`: embeddings that were made before

The cache has one folder per tower (its digest, its windowing, its modality):

    CACHE/
    └── image-3f2a90c1d7e45b68/
        ├── <digest>.safetensors    embeddings float32 [rows, dim], owners int64 [rows] (position
        │                           within the shard), spans float32 [rows, 2] (NaN: none)
        └── <digest>.json           items, rows, dim, XXH3 of the file beside it, failed items

A shard is named by the digest of its contents. So every task that has the same items at the same
positions of a shard finds it again, and a file that has changed costs one shard. A shard does not
depend on earlier runs. Any file may be removed: it is made again.
"""
