"""What a store holds, as one hash: the same wherever it lies."""

from hashlib import sha256
from pathlib import Path

from apogee_batch.errors import IntegrityError
from apogee_batch.run.ingest_inputs import planned_shards
from apogee_batch.run.ingest_plan import ingest_folders
from apogee_batch.run.ledger import Ledger
from apogee_batch.run.plan import run_id
from apogee_batch.store.spectra import STAR_ARRAYS
from apogee_batch.store.tables import STARS


def store_fingerprint(store: Path) -> str:
    """Return a hash of the spectra and of what is known of their stars, from the ledgers of the ingests.

    It does not depend on where the files lay.

    Raises
    ------
    IntegrityError
        If a shard is in no ledger.
    """
    digest = sha256()
    for folder in ingest_folders(store):
        shards, plan = planned_shards(folder)
        ledger = Ledger(folder / "ledger", store, run_id(plan))
        reports = {report.shard: report for report in ledger.entries()}
        for shard in shards:
            if shard not in reports:
                raise IntegrityError(
                    f"{folder / 'ledger'}: the entry of shard {shard} is missing or damaged; give the "
                    "'apogee-batch ingest' command again, which restores it"
                )
            files = [file for file in reports[shard].files if _is_of_stars(file.path)]
            digest.update("".join(file.sha256 for file in files).encode())
    return digest.hexdigest()


def _is_of_stars(path: str) -> bool:
    return f"/parts/{STARS}-" in path or path.startswith(STAR_ARRAYS)
