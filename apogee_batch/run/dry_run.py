"""What a command would do, without doing it."""

from pathlib import Path

from apogee_batch.errors import IntegrityError
from apogee_batch.network.model_files import is_trained, read_model
from apogee_batch.run.catalog_run import plan_run
from apogee_batch.run.config import RunConfig
from apogee_batch.run.ingest_plan import IngestPlan
from apogee_batch.run.ingest_tables import ingest_ledger
from apogee_batch.run.model_of_run import inference_ledger
from apogee_batch.run.plan import read_plan
from apogee_batch.run.run_folder import MODEL_FOLDER
from apogee_batch.store.spectra import STAR_ARRAYS, open_store
from apogee_batch.store.tables import read_labels, read_stars
from apogee_batch.survey.pixels import N_PIXELS

BYTES_PER_VALUE = 4
GIB = 1 << 30
# Peaks (ru_maxrss) in GiB of a local Dask worker: ingest of shards of 1024 and 4096 simulated stars 0.37 and
# 0.84; inference of 1024 and 4096 stars, whose spectra compress to 79 %, with 100 realizations 0.64 and 0.91,
# of 1024 stars with 2000 realizations 0.89. The constants are bounds; beside each what was seen.
PROCESS_GIB = 0.6  # Python with torch and Dask: 0.33
FORWARD_GIB = 0.3  # activations of one forward pass on a CPU, and what the allocator keeps: 0.2
INGEST_ARRAYS = 6  # flux, err and mask, stacked, and one of them filled or compressed: 4.8 arrays of float32
INFERENCE_ARRAYS = 6  # flux, err, and one of them in zarr's hands, compressed and not: 3.4
REALIZATION_ARRAYS = 5  # copies of one star on their way to the network: 4
PART_BYTES_PER_STAR = 200


def _spectra_gib(n_stars: int, n_arrays: int) -> float:
    return n_stars * n_arrays * N_PIXELS * BYTES_PER_VALUE / GIB


def ingest_gib(shard_stars: int) -> float:
    """Return an upper bound for the memory of a worker that ingests shards of `shard_stars`, in GiB."""
    return PROCESS_GIB + _spectra_gib(shard_stars, INGEST_ARRAYS)


def inference_gib(shard_stars: int, n_realizations: int) -> float:
    """Return an upper bound for the memory of a worker that infers shards of `shard_stars`, in GiB."""
    arrays = _spectra_gib(shard_stars, INFERENCE_ARRAYS) + _spectra_gib(n_realizations, REALIZATION_ARRAYS)
    return PROCESS_GIB + FORWARD_GIB + arrays


def describe_ingest(store: Path, plan: IngestPlan) -> list[str]:
    """Say what an ingest would read and write."""
    done = set(ingest_ledger(store, plan).done(check_bytes=False)) if plan.folder.is_dir() else set()
    n_bytes = sum(size for size in plan.inputs["size"].to_pylist() if size > 0)
    n_stars = sum(plan.inputs["n_rows"].to_pylist())
    raw_gib = _spectra_gib(n_stars, len(STAR_ARRAYS))
    memory = ingest_gib(plan.shard_stars)
    return [
        f"would ingest {len(plan.inputs)} files ({n_bytes / GIB:.3f} GiB) into {store}",
        f"spectra: {n_stars}, at most {raw_gib:.3f} GiB before compression",
        f"shards: {len(plan.shards)} of {plan.shard_stars} stars, {len(done)} done already",
        f"files written: {len(plan.shards) * len(STAR_ARRAYS) + 14}",
        f"memory per worker: at most about {memory:.1f} GiB",
    ]


def describe_run(store: Path, out: Path, model: Path | None, config: RunConfig) -> list[str]:
    """Say what a run would compute and write."""
    plan = plan_run(store, out, model, config)
    shards = plan["shards"]
    n_stars, shard_stars = len(read_stars(store)), open_store(store).shard_stars
    begun = read_plan(out)
    state = "nothing done yet"
    if begun is not None and begun != plan:
        state = "the folder holds a run with another plan: it would be refused"
    elif begun is not None:
        state = f"{_n_done(out, plan, model)} of {len(shards)} shards done already"
    memory = inference_gib(min(shard_stars, n_stars), config.inference.realizations)
    lines = [
        f"would estimate labels of {n_stars} stars of {store}",
        f"forward passes: {n_stars * (config.inference.realizations + 1):,}",
        f"shards: {len(shards)} of up to {shard_stars} stars; {state}",
        f"reads {_spectra_gib(n_stars, 2):.3f} GiB of spectra before compression; "
        f"writes about {n_stars * PART_BYTES_PER_STAR * 3 / GIB:.3f} GiB in {2 * len(shards) + 10} files",
        f"memory per worker on a CPU: at most about {memory:.1f} GiB",
    ]
    if model is None:
        lines.append(_describe_training(store, out / MODEL_FOLDER, config))
    return lines


def _n_done(out: Path, plan: dict[str, object], model: Path | None) -> int:
    folder = out / MODEL_FOLDER if model is None else model
    if model is None and not is_trained(folder):
        return 0
    try:
        used = read_model(folder).identity
    except IntegrityError:  # mended by the run: its calibration is made again
        return 0
    return len(inference_ledger(out, plan, used).done(check_bytes=False))


def _describe_training(store: Path, folder: Path, config: RunConfig) -> str:
    if is_trained(folder):
        return "training: done already"
    from apogee_batch.run.train_task import MAX_BYTES_IN_MEMORY  # needs torch, which nothing else here does

    labels = read_labels(store)
    n_labels = 0 if labels is None else len(labels)
    memory = PROCESS_GIB + 2.5 + min(_spectra_gib(n_labels, 1), MAX_BYTES_IN_MEMORY / GIB)
    return f"training: recipe {config.training.recipe} on {n_labels} labelled spectra, about {memory:.1f} GiB"
