"""Stage pretrain: the backbone learns from the corpus itself."""
