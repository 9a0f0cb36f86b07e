"""Stage label: pseudo-labels of every image."""
