"""Search over several processes or machines, through Ray (the extra `ray`).

stripes.py   which rows belong to which shard
sources.py   where a shard reads its codes
shard.py     what one actor does: hold codes, search them
members.py   the actors as the driver sees them: started, watched, replaced
engine.py    scatter, gather, merge
cluster.py   Ray on this machine alone
"""

from bittern.index.engines.sharded.actors import Sharding, ShardStatus
from bittern.index.engines.sharded.cluster import local_cluster
from bittern.index.engines.sharded.engine import Partial, ShardedEngine
from bittern.index.engines.sharded.sources import MemorySource, Source, StoreSource

__all__ = [
    "MemorySource",
    "Partial",
    "ShardStatus",
    "ShardedEngine",
    "Sharding",
    "Source",
    "StoreSource",
    "local_cluster",
]
