"""WebDataset shards: plain tars that are indexed once, and then read in any order."""

from skipless.data.shards.find import Shards, find_shards
from skipless.data.shards.index import index_shards
from skipless.data.shards.shard_files import ShardFiles
from skipless.data.shards.write import ShardsWritten, write_shards

__all__ = ["ShardFiles", "Shards", "ShardsWritten", "find_shards", "index_shards", "write_shards"]
