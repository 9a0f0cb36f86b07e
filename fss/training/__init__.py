"""Meta-training on one device: a step, its features, its optimisers, tuned backbones."""
