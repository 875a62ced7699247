"""Labels of stars from APOGEE spectra, by the method of APOGEE Net (Olney et al. 2020)."""

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apogee_batch.api import (
        Model,
        RunConfig,
        Spectrum,
        SpectrumStore,
        load_config,
        load_model,
        read_apstar,
        read_catalog,
        run_catalog,
    )

__version__ = "0.1.0"

__all__ = [
    "Model",
    "RunConfig",
    "Spectrum",
    "SpectrumStore",
    "__version__",
    "load_config",
    "load_model",
    "read_apstar",
    "read_catalog",
    "run_catalog",
]

# where no log is open, the terminal belongs to the lines of the commands
logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Load what programs may call when they first ask for it: the command line does not wait for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from apogee_batch import api

    return getattr(api, name)


def __dir__() -> list[str]:
    """Return the names that programs may use."""
    return sorted(__all__)
