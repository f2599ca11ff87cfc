"""Layouts of samples: how the files of one make a document.

Each file reads one layout: a pure function from a sample's files to a ``Document`` whose media are
still encoded.
"""
