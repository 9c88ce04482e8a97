"""Scores: metrics, and the exact evaluation of a split."""
