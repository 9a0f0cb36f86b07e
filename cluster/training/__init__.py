"""Training under Ray Train and DeepSpeed: the loop, its checkpoints and candidates."""
