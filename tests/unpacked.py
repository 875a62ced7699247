"""A store as it is while its ingest goes on, and as earlier versions left it: entries and parts as files."""

from pathlib import Path

from apogee_batch.run.archive import archive_path, list_files, read_file


def unpack_ingest(folder: Path) -> None:
    """Make files of the members of the archives of an ingest, and remove the archives."""
    for small in (folder / "ledger", folder / "parts"):
        contents = {path: read_file(path) for path in list_files(small)}
        small.mkdir(exist_ok=True)
        for path, content in contents.items():
            path.write_bytes(content)
        archive_path(small).unlink()
