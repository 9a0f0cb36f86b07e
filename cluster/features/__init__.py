"""The backbone on the cluster: which one a run uses, and one pass of it over a shard."""
