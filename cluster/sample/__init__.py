"""Stage sample: embeddings for k-means."""
