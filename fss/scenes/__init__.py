"""The embedded corpus: scenes that are rendered."""
