"""Spectra in, label estimates out."""
