"""Pseudo-tasks: how they are made, stored, ordered, seen and batched."""
