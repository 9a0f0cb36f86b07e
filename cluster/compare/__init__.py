"""Comparisons of evaluations, paired by episode."""
