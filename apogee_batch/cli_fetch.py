"""The command that says what to fetch from the survey's archive."""

from pathlib import Path
from typing import Annotated

import typer

from apogee_batch.cli_options import print_lines


def fetch_list(
    allstar: Annotated[Path, typer.Argument(metavar="ALLSTAR", help="allStar table of DR14, DR16 or DR17.")],
    out: Annotated[Path, typer.Option(help="Folder for the lists.")],
    release: Annotated[
        str | None, typer.Option(help="dr14, dr16 or dr17. [default: what the names of the files say]")
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="PROGRAM", help="rsync, wget or both.")] = "both",
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="Folder of the release elsewhere, as on a mirror; once for each program."),
    ] = None,
    telescope: Annotated[list[str] | None, typer.Option(help="Only of it; repeat for more.")] = None,
    field: Annotated[list[str] | None, typer.Option(help="Only of it; repeat for more.")] = None,
    location: Annotated[
        list[int] | None, typer.Option(help="Only of this LOCATION_ID; repeat for more.")
    ] = None,
    min_snr: Annotated[float | None, typer.Option(help="Leave stars of a lower SNR out.")] = None,
    limit: Annotated[int | None, typer.Option(help="Only the first files, for a trial.")] = None,
    split: Annotated[int, typer.Option(help="Lists for each program, to fetch several at a time.")] = 1,
) -> None:
    """Write lists of the spectra to fetch.

    For rsync and wget, with the survey's checksums. Nothing is downloaded.
    """
    from apogee_batch.run.fetch_list import FetchSettings, write_fetch_list
    from apogee_batch.survey.fetch_list import Choice

    choice = Choice(
        telescopes=tuple(telescope or ()),
        fields=tuple(field or ()),
        locations=tuple(location or ()),
        min_snr=min_snr,
        limit=limit,
    )
    settings = FetchSettings(choice, release, form, tuple(base_url or ()), split)
    print_lines(write_fetch_list(allstar, out, settings))
