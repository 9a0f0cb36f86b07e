"""Evaluation: episodes, running heads over them, scores, metrics and their intervals."""
