"""Stage refine: label maps of whole things, from the embeddings that label kept."""
