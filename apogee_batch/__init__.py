"""Labels of stars from APOGEE spectra, by the method of APOGEE Net (Olney et al. 2020)."""

__version__ = "0.1.0"
