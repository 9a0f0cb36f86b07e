"""The user's images, wherever they are, and how they are spread over shards."""
