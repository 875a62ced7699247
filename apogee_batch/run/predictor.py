"""A trained model in the hands of a Python program: spectra in, a table of labels out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from apogee_batch.errors import UsageError
from apogee_batch.inference.choose import choose_engine, make_engine
from apogee_batch.inference.engines import EngineChoice, Precision
from apogee_batch.inference.estimates import LabelEstimates, estimate_labels
from apogee_batch.network.checkpoint import Checkpoint, load_checkpoint
from apogee_batch.network.features import N_ACTIVATIONS, features_of
from apogee_batch.run.config import Device
from apogee_batch.run.devices import choose_device
from apogee_batch.run.infer import judge
from apogee_batch.schema import LABEL_NAMES, DoubleArray, FloatArray, catalog_columns
from apogee_batch.survey.pixels import N_PIXELS
from apogee_batch.survey.spectrum import UNKNOWN_STAR, Spectrum, measure_spectrum


class Model:
    """A network that predicts log g, Teff and [Fe/H]; made by `load_model`.

    Attributes
    ----------
    checkpoint : Checkpoint
        Its weights, header and calibration.
    """

    def __init__(
        self, checkpoint: Checkpoint, *, engine: EngineChoice, precision: Precision, device: Device
    ) -> None:
        self.checkpoint = checkpoint
        offer = choose_engine(engine, precision, choose_device(device))
        self._engine = make_engine(offer, checkpoint.model, checkpoint.transform, checkpoint.scaler)

    def __repr__(self) -> str:
        """Name the model and what computes it."""
        return f"Model({self.checkpoint.sha256[:16]}, {self._engine.name} {self._engine.precision})"

    def predict(
        self,
        flux: npt.ArrayLike,
        err: npt.ArrayLike,
        *,
        names: Sequence[str] | None = None,
        n_realizations: int = 100,
        seed: int = 0,
    ) -> Any:
        """Estimate the labels of stars, each from its own spectrum, name and the seed alone.

        With the names and the seed of a run the numbers are those of its catalogue.

        Parameters
        ----------
        flux, err : array-like, shape (n_stars, n_pixels) or (n_pixels,)
            Rest-frame spectra on the apStar grid and their one-sigma errors, 1e-17 erg/s/cm^2/Angstrom. A
            pixel without a measurement has an error of 1e9 or more, or is not finite.
        names : sequence of str, optional
            Names of the stars (`apstar_id`), from which their noise follows; by default "0", "1" ...
        n_realizations : int
            Noisy copies of each spectrum, at least 2.
        seed : int
            Of the noise.

        Returns
        -------
        astropy.table.Table, n_stars rows
            `name`, and of the catalogue's columns, with units: `snr`, labels, their scatter, `*_clean`, and
            `*_total` and `strangeness`, NaN where the model has no calibration.

        Raises
        ------
        UsageError
            If the shapes are others.
        ApStarError
            If a spectrum has no pixel with a measurement.
        """
        spectra = _measured(flux, err, names)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a run: with more, the last digits may be others
        try:
            return self._predict(spectra, n_realizations, seed)
        finally:
            torch.set_num_threads(threads)

    def _predict(self, spectra: Sequence[Spectrum], n_realizations: int, seed: int) -> Any:
        """Return the table of some stars."""
        clean_flux = np.stack([spectrum.flux for spectrum in spectra])
        keys = [spectrum.star.apstar_id for spectrum in spectra]
        estimates = estimate_labels(
            self._engine,
            keys,
            clean_flux,
            np.stack([spectrum.err for spectrum in spectra]),
            n_realizations=n_realizations,
            run_seed=seed,
        )
        snr = np.array([spectrum.star.snr for spectrum in spectra], np.float64)
        judged = judge(self.checkpoint.calibration, estimates, snr, self._features(clean_flux))
        n_stars = len(spectra)
        total = np.full((n_stars, len(LABEL_NAMES)), np.nan) if judged.total is None else judged.total
        strangeness = np.full(n_stars, np.nan) if judged.strangeness is None else judged.strangeness
        return _to_table(keys, snr, estimates, total, strangeness)

    def _features(self, flux: FloatArray) -> FloatArray:
        calibration = self.checkpoint.calibration
        if calibration is None or calibration.strangeness is None:
            return np.empty((0, N_ACTIVATIONS), np.float32)
        return features_of(self.checkpoint.model, self.checkpoint.transform, flux)


def load_model(
    path: str | Path,
    *,
    engine: EngineChoice = "auto",
    precision: Precision = "exact",
    device: Device = "auto",
) -> Model:
    """Load a model that `apogee-batch train` or `model import` has made.

    Parameters
    ----------
    path : path-like
        Folder of the model (of a run that trained one: `RUN/model`).
    engine, precision, device
        What computes, as `apogee-batch doctor` lists it.

    Raises
    ------
    UsageError
        If there is no model in the folder, or no such engine here.
    IntegrityError
        If a file is damaged.
    """
    return Model(load_checkpoint(Path(path)), engine=engine, precision=precision, device=device)


def _measured(flux: npt.ArrayLike, err: npt.ArrayLike, names: Sequence[str] | None) -> list[Spectrum]:
    """Return spectra as ingest would store them."""
    fluxes, errs = np.atleast_2d(np.asarray(flux)), np.atleast_2d(np.asarray(err))
    if fluxes.shape != errs.shape or fluxes.shape[1:] != (N_PIXELS,):
        wanted = f"give both as (n_stars, {N_PIXELS}), on the apStar grid"
        raise UsageError(f"flux {fluxes.shape} and err {errs.shape}: {wanted}")
    keys = [str(i) for i in range(len(fluxes))] if names is None else list(names)
    if len(keys) != len(fluxes) or not len(fluxes):
        raise UsageError(f"{len(keys)} names for {len(fluxes)} spectra: give as many, and at least one")
    no_mask = np.zeros(N_PIXELS, np.int32)
    spectra = []
    for key, of_star, errors in zip(keys, fluxes, errs, strict=True):
        star = replace(UNKNOWN_STAR, apstar_id=key)
        spectra.append(measure_spectrum(Path(f"spectrum {key}"), star, of_star, errors, no_mask))
    return spectra


def _to_table(
    keys: list[str], snr: DoubleArray, estimates: LabelEstimates, total: DoubleArray, strangeness: Any
) -> Any:
    """Return estimates as a table with the catalogue's names, units and descriptions."""
    from astropy.table import Column, Table

    values: dict[str, Any] = {"snr": snr, "strangeness": strangeness}
    for i, name in enumerate(LABEL_NAMES):
        values |= {name: estimates.mean[:, i], f"e_{name}": estimates.std[:, i]}
        values |= {f"{name}_clean": estimates.clean[:, i], f"e_{name}_total": total[:, i]}
    columns = [Column(keys, name="name", dtype=str)]
    columns += [
        Column(values[c.name], name=c.name, unit=c.unit or None, description=c.description)
        for c in catalog_columns()
        if c.name in values
    ]
    return Table(columns)
