"""Stage index: regions of the corpus that a head looks up, exported with it as a model."""
