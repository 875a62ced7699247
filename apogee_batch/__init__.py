"""Labels of stars from APOGEE spectra, by the method of APOGEE Net (Olney et al. 2020)."""

import logging

__version__ = "0.1.0"

# where no log is open, the terminal belongs to the lines of the commands
logging.getLogger(__name__).addHandler(logging.NullHandler())
