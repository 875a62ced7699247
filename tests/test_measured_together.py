"""Spectra that are measured together are, bit for bit, what each of them is by itself."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import make_values, simple_file

from apogee_batch.run import ingest_task
from apogee_batch.run.ingest_task import read_files
from apogee_batch.survey.apstar import Rows, read_apstar_file
from apogee_batch.survey.pixels import N_PIXELS
from apogee_batch.survey.spectrum import UNKNOWN_STAR, Star, measure_rows, measure_spectrum

REALS = [">f4", "<f4", ">f8", "<f8"]
UNUSUAL = [("flux", np.nan), ("flux", np.inf), ("flux", 1e300), ("err", np.nan), ("err", 0.0), ("err", -1.0)]


def bits(number: float) -> bytes:
    return struct.pack("<d", number)


@given(st.integers(0, 2**32 - 1), st.lists(st.sampled_from(REALS), min_size=1, max_size=5), st.booleans())
@settings(max_examples=25, deadline=None)
def test_ordinary_rows_are_those_of_single_spectra(seed: int, types: list[str], has_gap: bool) -> None:
    flux, err, _, _ = make_values(len(types), seed=seed)
    err[:, 100:1300] = 1e10 if has_gap else 1.0
    err[:, 5] = 2e9  # a gap of another filler, with a flux
    fluxes = [row.astype(kind) for row, kind in zip(flux, types, strict=True)]
    errs = [row.astype(kind) for row, kind in zip(err, types, strict=True)]
    flux_out, err_out = np.empty((2, len(types), N_PIXELS), np.float32)
    measured = measure_rows(fluxes, errs, flux_out=flux_out, err_out=err_out)
    assert measured is not None
    no_mask = np.zeros(N_PIXELS, np.int16)
    for i, (snr, n_bad_pixels) in enumerate(zip(*measured, strict=True)):
        alone = measure_spectrum(Path("a"), UNKNOWN_STAR, fluxes[i], errs[i], no_mask)
        assert (bits(snr), n_bad_pixels) == (bits(alone.star.snr), alone.star.n_bad_pixels)
        assert flux_out[i].tobytes() == alone.flux.tobytes()
        assert err_out[i].tobytes() == alone.err.tobytes()


@pytest.mark.parametrize(("which", "value"), UNUSUAL)
def test_rows_with_anything_unusual_are_to_be_measured_alone(which: str, value: float) -> None:
    flux, err = np.full((2, 3, N_PIXELS), 10.0)
    room = np.empty((2, 3, N_PIXELS), np.float32)
    assert measure_rows(list(flux), list(err), flux_out=room[0], err_out=room[1]) is not None
    {"flux": flux, "err": err}[which][1, 77] = value
    assert measure_rows(list(flux), list(err), flux_out=room[0], err_out=room[1]) is None


def test_a_row_of_gaps_alone_is_to_be_measured_alone() -> None:
    flux, err = np.full((2, 3, N_PIXELS), 10.0)
    err[2] = 1e10
    room = np.empty((2, 3, N_PIXELS), np.float32)
    assert measure_rows(list(flux), list(err), flux_out=room[0], err_out=room[1]) is None


def damaged(content: bytes, kind: int, n_rows: int) -> bytes:
    """Return a file with an error of its own kind; four in nine are as they were."""
    at = content.index(b"XTENSION")  # of the flux, whose header has one block
    last = at + 2880 + (n_rows - 1) * 4 * N_PIXELS  # the last row: a visit where there are some
    changed = {
        4: (at + 2880 + 400, np.array(np.nan, ">f4").tobytes()),
        5: (last, np.full(N_PIXELS, np.nan, ">f4").tobytes()),
        6: (at + 2880, np.full(N_PIXELS, np.nan, ">f4").tobytes()),
        7: (0, b"SIMPEL"),
    }
    if kind == 8:
        return content[: at + 9000]
    start, new = changed.get(kind, (0, b""))
    return content[:start] + new + content[start + len(new) :]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Files of one row and of many, with and without damage, as a plan names them."""
    folder, found, row = tmp_path_factory.mktemp("files"), [], 0
    for i in range(45):
        n_rows = (1, 5, 4, 1)[i % 4]
        path = folder / f"apStar-r8-2M{i:08d}+4027346.fits"
        path.write_bytes(damaged(simple_file(n_rows=n_rows), i % 9, n_rows))
        n_spectra = max(1, n_rows - 2)
        size = path.stat().st_size + (i == 9)  # it has become another one
        found.append({"path": str(path), "size": size, "row": row, "n_rows": n_spectra, "known": None})
        row += n_spectra
    return found


def fields(star: Star) -> list[str]:
    return [repr(value) for value in vars(star).values()]


@pytest.mark.parametrize("n_together", [1, 3, 16, 1000])
@pytest.mark.parametrize("rows", ["combined", "visits"])
def test_files_give_the_same_however_many_are_measured_at_once(
    inputs: list[dict[str, Any]], rows: Rows, n_together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_task, "MEASURED_ROWS", n_together)
    told: list[int] = []
    found = ingest_task.ShardContent.empty(inputs)
    found.on_row = told.append
    read_files(inputs, rows, "blake3", found=found)
    expected = [read_apstar_file(Path(record["path"]), rows=rows) for record in inputs]
    assert found.contents == [content for _, content in expected]
    spectra, places, rejects = [], [], []
    for i, (record, (read, _)) in enumerate(zip(inputs, expected, strict=True)):
        if isinstance(read, list) and i != 9:
            spectra += read
            places += [record["row"] + visit for visit in range(len(read))]
        else:
            rejects.append(record["path"])
    assert [reject.path for reject in found.rejects] == rejects
    assert found.n_used + len(rejects) == len(inputs)
    assert found.rows == told == places
    assert [fields(star) for star in found.stars] == [fields(spectrum.star) for spectrum in spectra]
    for name in ("flux", "err", "mask"):
        together = getattr(found, name)[: len(spectra)]
        assert together.tobytes() == np.stack([getattr(one, name) for one in spectra]).tobytes()
