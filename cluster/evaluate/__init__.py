"""Measuring models on episodes: workers, figures, tables, comparisons."""
