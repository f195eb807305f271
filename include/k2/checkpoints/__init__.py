"""Spark's streaming checkpoints: read, examined and kept small. Nothing here imports Spark."""
