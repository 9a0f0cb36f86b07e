"""Pseudo-labels: sources, segments, label maps and regions, and what they are worth."""
