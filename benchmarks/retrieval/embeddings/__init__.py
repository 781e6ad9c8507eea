"""Items and queries through the towers, once: shards on disk, kept by digest."""
