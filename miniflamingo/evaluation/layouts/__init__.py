"""The file layouts that tasks are published in."""
