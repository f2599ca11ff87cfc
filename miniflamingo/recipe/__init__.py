"""Recipes: read from YAML and checked before any long work starts."""
