"""Groups of shards as pairing reads them, and tasks made while training."""
