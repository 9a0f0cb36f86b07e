"""Levels of a backbone, chosen without labels on photos of the corpus."""
