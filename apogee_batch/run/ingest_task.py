"""What a worker does to ingest: read the files of one shard, write its rows."""

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from apogee_batch.errors import RejectReason
from apogee_batch.files import write_table
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.run.in_flight import read_in_order
from apogee_batch.run.ingest_inputs import most_at_once, read_shard_inputs, star_from_json
from apogee_batch.run.ingest_tables import (
    CONTENTS,
    contents_table,
    part_path,
    reject_table,
    star_table,
)
from apogee_batch.run.ledger import WORKER, ShardReport, name_worker, relative_digest
from apogee_batch.schema import FloatArray, IntArray
from apogee_batch.store.spectra import STAGING, ShardWriter, open_store
from apogee_batch.store.tables import REJECTS, STARS
from apogee_batch.survey.apstar import FileContent, FileValues, RejectedSpectrum, Rows, Star, read_values
from apogee_batch.survey.content_hash import HashName, begin_hash
from apogee_batch.survey.identity import guess_apogee_id
from apogee_batch.survey.pixels import N_PIXELS
from apogee_batch.survey.spectrum import is_narrow, measure_rows

MEASURED_ROWS = 16  # spectra that are looked at together: 2 MB, which stay near the processor


def _go_on(row: int) -> None:
    """Do nothing."""


@dataclass
class ShardContent:
    """What the files of a shard gave.

    Attributes
    ----------
    flux, err : ndarray of float32, shape (n_rows, n_pixels)
        The spectra come first, in the order of their rows; what follows means nothing.
    mask : ndarray of int32, shape (n_rows, n_pixels)
        Likewise.
    stars : list of Star
        Whose they are.
    rows : list of int
        The store's row of each.
    rejects : list of RejectedSpectrum
        Files of no use.
    contents : list of FileContent
        Of every file, in the order of the inputs.
    n_used : int
        Files that gave a spectrum.
    on_row : callable
        Told the row of each spectrum, when it is there.
    """

    flux: FloatArray
    err: FloatArray
    mask: IntArray
    stars: list[Star] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    rejects: list[RejectedSpectrum] = field(default_factory=list)
    contents: list[FileContent] = field(default_factory=list)
    n_used: int = 0
    on_row: Callable[[int], object] = _go_on

    @classmethod
    def empty(cls, inputs: Sequence[dict[str, Any]]) -> "ShardContent":
        """Return room for the spectra of some files of a plan; memory is taken as it is filled."""
        n_rows = sum(record["n_rows"] for record in inputs)
        flux, err = (np.empty((n_rows, N_PIXELS), np.float32) for _ in range(2))
        return cls(flux, err, np.empty((n_rows, N_PIXELS), np.int32))

    def add(self, files: Sequence[tuple[int, FileValues | RejectedSpectrum]]) -> None:
        """Take the next files, each with its first row, together if their spectra are all ordinary ones."""
        values = [found for _, found in files if isinstance(found, FileValues)]
        is_ordinary = all(is_narrow(found.mask.dtype) for found in values) and self._add_together(values)
        for row, found in files:
            if isinstance(found, RejectedSpectrum):
                self.rejects.append(found)
            elif is_ordinary:
                self._note(row, len(found.stars))
            else:
                self._add_alone(row, found)

    def _add_together(self, values: Sequence[FileValues]) -> bool:
        """Take the spectra of some files unless one of them has to be looked at by itself."""
        if not values:
            return True
        flux = [row for found in values for row in found.flux]
        err = [row for found in values for row in found.err]
        mask = [row for found in values for row in found.mask]
        first = len(self.stars)
        room = slice(first, first + len(flux))
        measured = measure_rows(flux, err, flux_out=self.flux[room], err_out=self.err[room])
        if measured is None:
            return False
        for i, of_row in enumerate(mask):
            self.mask[first + i] = of_row
        stars = [star for found in values for star in found.stars]
        self.stars += [
            star.measured(snr=snr, n_bad_pixels=n_bad_pixels)
            for star, snr, n_bad_pixels in zip(stars, *measured, strict=True)
        ]
        return True

    def _add_alone(self, row: int, found: FileValues) -> None:
        """Take the spectra of a file, or none of them."""
        spectra = found.measure()
        if isinstance(spectra, RejectedSpectrum):
            self.rejects.append(spectra)
            return
        for spectrum in spectra:
            i = len(self.stars)
            self.flux[i], self.err[i], self.mask[i] = spectrum.flux, spectrum.err, spectrum.mask
            self.stars.append(spectrum.star)
        self._note(row, len(spectra))

    def _note(self, row: int, n_rows: int) -> None:
        """Tell of rows that are there."""
        self.n_used += 1
        for there in range(row, row + n_rows):
            self.rows.append(there)
            self.on_row(there)


def ingest_shard(
    store: str,
    ingest: str,
    rows: Rows,
    shard: int,
    *,
    hash_name: HashName,
    excluded: Sequence[int] = (),
    only: Sequence[int] | None = None,
) -> ShardReport:
    """Read the files of one shard and write its rows: a task.

    Parameters
    ----------
    store, ingest : str
        Path of the store; name of the ingest's folder in it.
    rows : {"combined", "visits"}
        What becomes a row.
    shard : int
        The shard.
    hash_name : {"blake3", "blake2b"}
        How what is read is hashed.
    excluded : sequence of int
        Places among the shard's files of those that end a worker; they are not opened.
    only : sequence of int, optional
        Read just the files in these places, and write nothing.
    """
    started = time.monotonic()
    keep_freed_memory()  # room for a shard, and for each chunk, is mapped and cleared once, not each time
    base, folder = Path(store), Path(store) / "ingest" / ingest
    inputs = read_shard_inputs(folder, shard)
    if only is not None:
        inputs = [inputs[place] for place in only]
    written = []
    if only is not None:
        content = read_files(inputs, rows, hash_name, excluded=excluded)
    else:
        info = open_store(base)
        first = info.shard_rows(shard)[0]
        content = ShardContent.empty(inputs)
        with ShardWriter(info, shard, flux=content.flux, err=content.err, mask=content.mask) as writer:
            content.on_row = lambda row: writer.add(row - first)
            read_files(inputs, rows, hash_name, excluded=excluded, found=content)
        written += writer.written
        for name, table in _tables(inputs, content, hash_name).items():
            written.append(write_table(part_path(folder, name, shard), table, staging=base / STAGING))
    return ShardReport(
        shard=shard,
        n_inputs=len(inputs),
        n_stars=len(content.stars),
        n_rejected=len(content.rejects),
        files=tuple(relative_digest(file, base) for file in written),
        seconds=time.monotonic() - started,
        host=socket.gethostname(),
        extra={"n_used": content.n_used, WORKER: name_worker()},
    )


def _tables(
    inputs: Sequence[dict[str, Any]], content: ShardContent, hash_name: HashName
) -> dict[str, pa.Table]:
    return {
        STARS: star_table(content.stars, content.rows),
        REJECTS: reject_table(content.rejects),
        CONTENTS: contents_table(inputs, content.contents, hash_name),
    }


def read_files(
    inputs: Sequence[dict[str, Any]],
    rows: Rows,
    hash_name: HashName = "blake3",
    *,
    excluded: Sequence[int] = (),
    found: ShardContent | None = None,
) -> ShardContent:
    """Read every file, and count those that gave a spectrum; a bad one costs its own rows only.

    Parameters
    ----------
    inputs : sequence of dict
        Rows of the table of inputs.
    rows : {"combined", "visits"}
        What becomes a row.
    hash_name : {"blake3", "blake2b"}
        How what is read is hashed.
    excluded : sequence of int
        Places of files that are not to be opened.
    found : ShardContent, optional
        Room for what they give, which is returned; made here if there is none.
    """
    found = found or ShardContent.empty(inputs)

    def read(place: int) -> tuple[FileValues | RejectedSpectrum, FileContent]:
        record = inputs[place]
        if place in excluded:
            return _reject_unopened(Path(record["path"])), FileContent(record["size"], None)
        return _read_file(record, rows, hash_name)

    results = read_in_order(read, range(len(inputs)), most_at_once=most_at_once(inputs))
    waiting: list[tuple[int, FileValues | RejectedSpectrum]] = []
    n_waiting = 0
    for record, (values, content) in zip(inputs, results, strict=True):
        found.contents.append(content)
        waiting.append((record["row"], values))
        n_waiting += record["n_rows"]
        if n_waiting >= MEASURED_ROWS:
            found.add(waiting)
            waiting, n_waiting = [], 0
    found.add(waiting)
    return found


def _reject_unopened(path: Path) -> RejectedSpectrum:
    text = "each worker that read it was lost, as by a crash in native code or for want of memory"
    return RejectedSpectrum(str(path), guess_apogee_id(path, None), RejectReason.WORKER_KILLED, text)


def _read_file(
    record: dict[str, Any], rows: Rows, hash_name: HashName
) -> tuple[FileValues | RejectedSpectrum, FileContent]:
    """Read one file, which must still be the planned one."""
    known = None if record["known"] is None else star_from_json(record["known"])
    path = Path(record["path"])
    hashed = begin_hash(hash_name)
    values = read_values(path, rows, known, hashed)
    content = hashed.content()
    has_other_size = content.digest is not None and content.size != record["size"]
    n_spectra = 0 if isinstance(values, RejectedSpectrum) else len(values.stars)
    if not has_other_size and n_spectra <= record["n_rows"]:
        return values, content
    read = values if isinstance(values, RejectedSpectrum) else values.measure()
    problem = f"has {content.size} bytes, had {record['size']} when the ingest was planned"
    if not has_other_size:
        if isinstance(read, RejectedSpectrum):
            return read, content
        problem = f"has {n_spectra} spectra, had {record['n_rows']} when the ingest was planned"
    apogee_id = read.apogee_id if isinstance(read, RejectedSpectrum) else read[0].star.apogee_id
    return RejectedSpectrum(str(path), apogee_id, RejectReason.CHANGED, problem), content
