"""Search over several processes or machines, through Ray (the extra `ray`).

cluster.py         Ray on this machine alone
shard.py           partitions (which rows belong to which shard), and one shard
sharded_engine.py  the shards as Ray actors: scatter, gather, merge, replace
"""

from bittern.index.engines.sharded.cluster import local_cluster
from bittern.index.engines.sharded.shard import Source
from bittern.index.engines.sharded.sharded_engine import (
    Partial,
    ShardedEngine,
    Sharding,
    ShardStatus,
)

__all__ = ["Partial", "ShardStatus", "ShardedEngine", "Sharding", "Source", "local_cluster"]
