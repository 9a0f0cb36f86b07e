"""Self-supervised pre-training of a small backbone by contrast of object proposals."""
