"""Thin commands: parse, call one function, print or save."""
