"""Search over several processes or machines, through Ray (the extra `ray`).

cluster.py   Ray on this machine alone
shard.py     partitions: which rows belong to which shard; what one shard holds and searches
actors.py    the shards as Ray actors: started, watched, replaced
engine.py    scatter, gather, merge
"""

from bittern.index.engines.sharded.actors import Sharding, ShardStatus
from bittern.index.engines.sharded.cluster import local_cluster
from bittern.index.engines.sharded.engine import Partial, ShardedEngine
from bittern.index.engines.sharded.shard import Source

__all__ = ["Partial", "ShardStatus", "ShardedEngine", "Sharding", "Source", "local_cluster"]
