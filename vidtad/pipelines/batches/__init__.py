"""Many videos: the work list, worker processes, shards and the cluster."""
