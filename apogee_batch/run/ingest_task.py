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
from apogee_batch.survey.apstar import FileContent, RejectedSpectrum, Rows, Spectrum, read_apstar_file
from apogee_batch.survey.content_hash import HashName
from apogee_batch.survey.identity import guess_apogee_id
from apogee_batch.survey.pixels import N_PIXELS


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
    spectra : list of Spectrum
        Views of those arrays.
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
    spectra: list[Spectrum] = field(default_factory=list)
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

    def add(self, spectrum: Spectrum, row: int) -> None:
        """Take the next spectrum; to keep it apart and to stack them later would take twice the memory."""
        i = len(self.spectra)
        self.flux[i], self.err[i], self.mask[i] = spectrum.flux, spectrum.err, spectrum.mask
        self.spectra.append(Spectrum(spectrum.star, self.flux[i], self.err[i], self.mask[i]))
        self.rows.append(row)
        self.on_row(row)


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
        n_stars=len(content.spectra),
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
        STARS: star_table(content.spectra, content.rows),
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

    def read(place: int) -> tuple[list[Spectrum] | RejectedSpectrum, FileContent]:
        record = inputs[place]
        if place in excluded:
            return _reject_unopened(Path(record["path"])), FileContent(record["size"], None)
        return _read_file(record, rows, hash_name)

    results = read_in_order(read, range(len(inputs)), most_at_once=most_at_once(inputs))
    for record, (spectra, content) in zip(inputs, results, strict=True):
        found.contents.append(content)
        if isinstance(spectra, RejectedSpectrum):
            found.rejects.append(spectra)
            continue
        for i, spectrum in enumerate(spectra):
            found.add(spectrum, record["row"] + i)
        found.n_used += 1
    return found


def _reject_unopened(path: Path) -> RejectedSpectrum:
    text = "each worker that read it was lost, as by a crash in native code or for want of memory"
    return RejectedSpectrum(str(path), guess_apogee_id(path, None), RejectReason.WORKER_KILLED, text)


def _read_file(
    record: dict[str, Any], rows: Rows, hash_name: HashName
) -> tuple[list[Spectrum] | RejectedSpectrum, FileContent]:
    """Read one file, which must still be the planned one."""
    known = None if record["known"] is None else star_from_json(record["known"])
    path = Path(record["path"])
    read, content = read_apstar_file(path, rows=rows, known=known, hash_name=hash_name)
    problem = None
    if content.digest is not None and content.size != record["size"]:
        problem = f"has {content.size} bytes, had {record['size']} when the ingest was planned"
    elif isinstance(read, list) and len(read) > record["n_rows"]:
        problem = f"has {len(read)} spectra, had {record['n_rows']} when the ingest was planned"
    if problem is not None:
        apogee_id = read[0].star.apogee_id if isinstance(read, list) else read.apogee_id
        read = RejectedSpectrum(str(path), apogee_id, RejectReason.CHANGED, problem)
    return read, content
