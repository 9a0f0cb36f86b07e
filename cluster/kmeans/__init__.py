"""Stage kmeans: clusters of the sampled embeddings."""
