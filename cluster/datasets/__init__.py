"""Labelled images that a run is given: where they are, what of them is hashed, and whether they can be used."""
