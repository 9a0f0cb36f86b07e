"""Stage train: meta-training of a head."""
