"""Tests of the trained model as users hold it."""
