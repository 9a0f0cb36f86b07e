"""A model over HTTP: an API, a page of its own, and what annotation tools ask of a model."""
