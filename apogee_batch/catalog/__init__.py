"""Rows of the catalogue and the files that hold it."""
