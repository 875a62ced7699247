"""What Python programs may call: `import apogee_batch as ab`. Everything else may change without notice."""

from pathlib import Path
from typing import Any, Literal, overload

from apogee_batch.errors import ApStarError, UsageError
from apogee_batch.run.config import RunConfig
from apogee_batch.run.config import load_config as load_settings
from apogee_batch.run.predictor import Model, load_model
from apogee_batch.store.spectrum_store import SpectrumStore
from apogee_batch.survey.apstar import read_apstar as read_spectra_of_file
from apogee_batch.survey.spectrum import RejectedSpectrum, Spectrum

__all__ = [
    "Model",
    "RunConfig",
    "Spectrum",
    "SpectrumStore",
    "load_config",
    "load_model",
    "read_apstar",
    "read_catalog",
    "run_catalog",
]

PathLike = str | Path


def read_apstar(path: PathLike) -> Spectrum:
    """Read the combined spectrum of an apStar file (DR12 to DR17), plain or gzip.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    Spectrum
        `flux` and `err` (1e-17 erg/s/cm^2/Angstrom), `mask`, `wavelength` (Angstrom, vacuum) and `star`.

    Raises
    ------
    ApStarError
        If the file cannot be used; `reason` is the code that `rejects.parquet` would have.
    """
    found = read_spectra_of_file(Path(path))
    if isinstance(found, RejectedSpectrum):
        raise ApStarError(Path(path), found.reason, found.text)
    return found[0]


def load_config(path: PathLike | None = None, **sections: dict[str, Any]) -> RunConfig:
    """Return the settings of a TOML file, with some values set over it.

    Parameters
    ----------
    path : path-like, optional
        The file; without it the defaults.
    **sections : dict
        Values by section: ``inference={"realizations": 20}``.

    Raises
    ------
    UsageError
        If a setting is unknown or of no use.
    """
    return load_settings(None if path is None else Path(path), sections)


@overload
def read_catalog(run: PathLike, kind: Literal["astropy"] = "astropy") -> Any: ...
@overload
def read_catalog(run: PathLike, kind: Literal["pandas"]) -> Any: ...
def read_catalog(run: PathLike, kind: Literal["astropy", "pandas"] = "astropy") -> Any:
    """Read the catalogue of a run.

    Parameters
    ----------
    run : path-like
        Folder of a published run, or a catalogue's Parquet file.
    kind : {"astropy", "pandas"}
        A `Table` with units and masked values, or a frame.

    Raises
    ------
    UsageError
        If there is no catalogue, or pandas is asked for and not installed.
    """
    path = Path(run) / "catalog" / "catalog.parquet" if Path(run).is_dir() else Path(run)
    if not path.is_file():
        raise UsageError(f"{run}: holds no published catalogue; name the folder of a finished run")
    if kind == "astropy":
        from astropy.table import Table

        return Table.read(path, format="parquet")
    try:
        import pandas as pd
    except ImportError as error:
        raise UsageError("this needs pandas; install it with: pip install pandas") from error
    return pd.read_parquet(path)


def run_catalog(
    store: PathLike,
    out: PathLike,
    *,
    model: PathLike | None = None,
    config: RunConfig | PathLike | None = None,
) -> Path:
    """Make the catalogue of a store, as `apogee-batch run-catalog` does; go on where an earlier call stopped.

    With local workers, call it behind ``if __name__ == "__main__":``, since they import the calling script.

    Parameters
    ----------
    store : path-like
        Store made by `apogee-batch ingest`.
    out : path-like
        Folder of the run.
    model : path-like, optional
        Folder of a trained model; by default one is trained on the store's labels.
    config : RunConfig or path-like, optional
        Settings, or a TOML file of them.

    Returns
    -------
    Path
        The folder of the run, for `read_catalog`.

    Raises
    ------
    ApogeeBatchError
        What the command line would tell in a line.
    """
    from apogee_batch.run.commands import make_catalog
    from apogee_batch.run.progress import SilentView

    settings = config if isinstance(config, RunConfig) else load_config(config)
    make_catalog(
        Path(store),
        Path(out),
        model=None if model is None else Path(model),
        config=settings,
        is_dry_run=False,
        progress=SilentView(),
        wants_page=True,
    )
    return Path(out)
