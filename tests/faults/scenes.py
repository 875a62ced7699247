"""What fault tests work on: a survey, the settings and the model, and what comes out if nobody disturbs."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from apogee_batch.run import commands
from apogee_batch.run.config import RunConfig
from apogee_batch.run.progress import SilentView
from apogee_batch.survey.simulate import SimulatedSurvey

CHANGING = ("ledger", "ledger.tar", "logs", "stages.jsonl", "report.html", "figures")  # times, names of hosts
FILES = ("catalog/catalog.parquet", "catalog/catalog.fits", "rejects.parquet")


@dataclass(frozen=True)
class Scene:
    """A survey, the settings and the model it is worked on with, and what comes out if nobody disturbs.

    Attributes
    ----------
    survey : SimulatedSurvey
        240 stars; one file is cut short, one is empty.
    config : RunConfig
        This process alone, shards of 64 stars, two realizations, one thread.
    store, run, model : Path
        Store with labels; its finished run with that model. Tests that change them take a copy.
    """

    survey: SimulatedSurvey
    config: RunConfig
    store: Path
    run: Path
    model: Path

    def ingest(self, store: Path) -> None:
        """Give the command that makes the store, without labels."""
        commands.ingest(
            [str(self.survey.spectra)],
            store,
            allstar=self.survey.allstar,
            config=self.config,
            is_dry_run=False,
            progress=SilentView(),
        )

    def attach(self, store: Path) -> None:
        """Give the command that attaches the labels."""
        tables = {name: [path] for name, path in self.survey.labels.items()}
        commands.attach(store, tables, column_map=[])

    def make_catalog(self, run: Path, *, store: Path | None = None) -> None:
        """Give the command that makes the run."""
        commands.make_catalog(
            store or self.store,
            run,
            model=self.model,
            config=self.config,
            is_dry_run=False,
            progress=SilentView(),
        )

    @property
    def catalog_hashes(self) -> dict[str, str]:
        """The undisturbed catalogue."""
        return catalog_hashes(self.run)


def catalog_hashes(run: Path) -> dict[str, str]:
    """Return the SHA-256 of what a run publishes: catalogue as Parquet and FITS, rejects."""
    return {name: sha256((run / name).read_bytes()).hexdigest() for name in FILES}


def hash_all(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a run or store that is the same each time, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(name in path.relative_to(folder).parts for name in CHANGING)
    }
