"""The pipeline of every job: media in, codes stored.

    list → read → decode → network (batched) → hash → commit

prefetch.py    the first three, in threads; slots.py bounds their memory
reading.py    files, bytes and addresses, and what tells whether a file has changed
items.py      what goes through: items, pieces, embeddings
batches.py    the network
embedding.py  everything up to embeddings, as one iterator
storing.py    hash and commit, beside the network
"""

from __future__ import annotations

from bittern.service.ingest.batches import NETWORK_BATCH
from bittern.service.ingest.embedding import FLUSH_ITEMS, embed_items
from bittern.service.ingest.items import (
    Asked,
    Embedded,
    Entry,
    Piece,
    Recheck,
    decode,
    fragment_id,
)
from bittern.service.ingest.slots import Bounds
from bittern.service.ingest.storing import COMMIT_ITEMS, COMMIT_S, Pace, store_all

__all__ = [
    "COMMIT_ITEMS",
    "COMMIT_S",
    "FLUSH_ITEMS",
    "NETWORK_BATCH",
    "Asked",
    "Bounds",
    "Embedded",
    "Entry",
    "Pace",
    "Piece",
    "Recheck",
    "decode",
    "embed_items",
    "fragment_id",
    "store_all",
]
