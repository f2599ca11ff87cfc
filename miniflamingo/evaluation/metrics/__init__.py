"""Scores of answers, one metric a file."""
