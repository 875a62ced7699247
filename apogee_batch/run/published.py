"""What a published run says of itself: a run that is finished is found so without anything that publishes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apogee_batch.files import read_json, read_sealed_json, sha256_of_text
from apogee_batch.network.model_files import Identity
from apogee_batch.report.tables import Agreement, Results
from apogee_batch.run.ledger import ShardReport, WrittenFile, find_damage
from apogee_batch.run.plan import run_id
from apogee_batch.run.run_folder import MANIFEST_FILE, RESULTS_FILE
from apogee_batch.schema import LABEL_NAMES

PARTS_HASH = "parts_sha256"


@dataclass(frozen=True)
class Published:
    """What a published run left.

    Attributes
    ----------
    n_stars, n_rejects : int
        Rows of the catalogue; inputs that gave none.
    results : Results
        Agreement with the labels.
    """

    n_stars: int
    n_rejects: int
    results: Results


def read_published(
    run: Path,
    reports: Mapping[int, ShardReport],
    *,
    plan: dict[str, Any],
    model: Identity,
    devices: Sequence[str],
) -> Published | None:
    """Return what was published from these parts; None where nothing was, or a file of it is not whole.

    Parameters
    ----------
    run : Path
        The run's folder.
    reports : mapping of int to ShardReport
        The shards of the ledger whose parts have the bytes that were recorded.
    plan : dict
        The run's plan.
    model : Identity
        Hashes of the model and its calibration that were used.
    devices : sequence of str
        What the parts were computed on.
    """
    if not (run / MANIFEST_FILE).is_file() or any(shard not in reports for shard in plan["shards"]):
        return None
    manifest = _read_manifest(run, origin_of(reports, plan=plan, model=model, devices=devices))
    if manifest is None:
        return None
    return Published(manifest["stars"], manifest["rejects"], _read_results(run))


def origin_of(
    reports: Mapping[int, ShardReport], *, plan: dict[str, Any], model: Identity, devices: Sequence[str]
) -> dict[str, Any]:
    """Return what a manifest says that a catalogue was made of; for the arguments see `read_published`."""
    return {
        "run_id": run_id(plan),
        **model._asdict(),
        "devices": sorted(set(devices)),
        PARTS_HASH: hash_of_parts([reports[shard] for shard in plan["shards"]]),
    }


def hash_of_parts(reports: Sequence[ShardReport]) -> str:
    """Return one hash of the parts that a catalogue is made of, in its order."""
    return sha256_of_text("".join(file.sha256 for report in reports for file in report.files))


def _read_manifest(run: Path, made_of: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of a run that is published already; None where a file or an origin is another."""
    try:
        manifest = read_sealed_json(run / MANIFEST_FILE)
        files = [WrittenFile(**file) for file in manifest["files"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    is_same = all(manifest.get(key) == value for key, value in made_of.items())
    is_whole = is_same and not any(find_damage(file, run) for file in files)
    return manifest if is_whole else None


def _read_results(run: Path) -> Results:
    """Read the agreement that was published; JSON keeps every digit."""
    told = read_json(run / RESULTS_FILE)
    same = ("data_type", "data_set", "n_stars", "n_left_out", "mse")
    agreements = [
        Agreement(
            **{key: group[key] for key in same},
            rms=group["rms"] if group["n_stars"] else {},
            label_spread=group["label_spread"] if group["n_stars"] else {},
        )
        for group in told["groups"]
    ]
    return Results(tuple(told["label_std"][name] for name in LABEL_NAMES), tuple(agreements))
