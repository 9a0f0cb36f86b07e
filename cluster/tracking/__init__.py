"""Metrics: journals on disk first, MLflow from there."""
