"""Whether the metadata of a store are what they should be, and how to write them again.

All of them follow from the number of rows, the size of a shard and its chunks, which the shards themselves
tell, so nothing is lost with them.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from apogee_batch.files import write_bytes
from apogee_batch.store.chunks import ChunkLayout, is_shard_file, known_layouts
from apogee_batch.store.layout import METADATA_FILE, make_empty


def find_metadata_damage(path: Path, *, n_rows: int, shard_stars: int) -> list[tuple[Path, str]]:
    """Compare the metadata and the wavelengths of a store with those of a new one.

    Parameters
    ----------
    path : Path
        Folder of the store.
    n_rows, shard_stars : int
        What its ingests say.

    Returns
    -------
    list of (Path, str)
        The files that differ, and how.
    """
    return min(
        (_compare(path, _expected(n_rows, shard_stars, chunks)) for chunks in _possible(path, shard_stars)),
        key=len,
    )


def restore_metadata(path: Path, *, n_rows: int, shard_stars: int) -> list[Path]:
    """Write again what `find_metadata_damage` finds; return the files."""
    found = [
        (_compare(path, expected), expected)
        for expected in (_expected(n_rows, shard_stars, chunks) for chunks in _possible(path, shard_stars))
    ]
    damage, expected = min(found, key=lambda item: len(item[0]))
    for file, _ in damage:
        write_bytes(file, expected[file.relative_to(path).as_posix()].to_bytes())
    return [file for file, _ in damage]


def _possible(path: Path, shard_stars: int) -> list[ChunkLayout]:
    """Return the layouts that the shards of a store may have, the newest first; a shard tells which it is."""
    layouts = known_layouts(shard_stars)
    for file in sorted(path.glob("*/c/*/0")):
        fitting = [layout for layout in layouts if is_shard_file(file, layout, shard_stars)]
        if fitting:
            return fitting
    return list(layouts)


def _compare(path: Path, expected_files: Mapping[str, Buffer]) -> list[tuple[Path, str]]:
    """Return the files that are not as they should be, and how."""
    damage = []
    for name, expected in expected_files.items():
        file = path / name
        if not file.is_file():
            damage.append((file, "is missing"))
        elif name.endswith(METADATA_FILE):
            if _read_json(file.read_bytes()) != _read_json(expected.to_bytes()):
                damage.append((file, "is damaged"))
        elif file.read_bytes() != expected.to_bytes():
            damage.append((file, "has other bytes than were written"))
    return damage


def _expected(n_rows: int, shard_stars: int, chunks: ChunkLayout) -> dict[str, Buffer]:
    """Return the files of an empty store."""
    held: dict[str, Buffer] = {}
    make_empty(MemoryStore(held), n_rows=n_rows, shard_stars=shard_stars, chunks=chunks)
    return held


def _read_json(content: bytes) -> Any:
    """Return what a JSON text says, so that only its meaning is compared; None for what is no JSON."""
    try:
        return json.loads(content)
    except ValueError:
        return None
