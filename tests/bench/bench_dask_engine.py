"""One worker and two with a real engine: how much of the second one arrives, with Dask and without.

    python tests/bench/bench_dask_engine.py FOLDER [--stars 256] [--shard-stars 64] [--each 4] [--rounds 5]

Four teams do the same tasks, shards of a simulated store, in turns: one and two workers of Dask as a run has
them, whose shards are committed to a ledger; and one and two processes that call the task in a loop. Two
cores share their clock and their memory, so two processes do less than twice what one does; what Dask costs
is the difference between the two ways. FOLDER keeps survey, store and model for the next time; `--lock`: a
file to lock during each round, so that several comparisons on a machine take turns.
"""

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from pairs import DISTURBED, Contender, Team, locked, quartiles, serve

from apogee_batch.network.checkpoint import load_checkpoint
from apogee_batch.run import commands
from apogee_batch.run.catalog_run import begin_run
from apogee_batch.run.clusters import Workers, open_workers
from apogee_batch.run.config import RunConfig, load_config
from apogee_batch.run.infer import infer_shard
from apogee_batch.run.ledger import Ledger, ShardReport
from apogee_batch.run.plan import read_plan
from apogee_batch.run.progress import SilentView
from apogee_batch.run.run_folder import inference_settings
from apogee_batch.run.stages import run_shards
from apogee_batch.survey.simulate import simulate_survey

SERVE = "--serve"
Task = partial[ShardReport]


def settings(asked: argparse.Namespace, n_workers: int = 1) -> RunConfig:
    """Return the settings of the run."""
    sections = {
        "ingest": {"shard_stars": asked.shard_stars},
        "inference": {"engine": asked.engine, "precision": asked.precision},
        "cluster": {"kind": "local", "workers": n_workers, "device": "cpu"},
    }
    return load_config(None, sections)


def prepare(folder: Path, asked: argparse.Namespace) -> None:
    """Make survey, store and model unless they are there, and a run that has not begun its shards."""
    from stub_survey import make_model

    make_model(folder / "model")
    store = folder / f"s{asked.stars}-{asked.shard_stars}.zarr"
    if not store.exists():
        survey = simulate_survey(folder / f"survey{asked.stars}", n_stars=asked.stars, seed=1)
        config = settings(asked)
        commands.ingest(
            [str(survey.spectra)],
            store,
            allstar=survey.allstar,
            config=config,
            is_dry_run=False,
            progress=SilentView(),
        )
    for way in ("dask", "0", "1"):
        shutil.rmtree(folder / f"run-{way}", ignore_errors=True)
        begin_run(store, folder / f"run-{way}", folder / "model", settings(asked), SilentView())


def make_task(folder: Path, way: str, asked: argparse.Namespace) -> Task:
    """Return the task of a real run."""
    run = folder / f"run-{way}"
    plan = read_plan(run) or {}
    identity = load_checkpoint(folder / "model").identity
    told = inference_settings(plan, identity, device="cpu", engine=asked.engine)
    store = folder / f"s{asked.stars}-{asked.shard_stars}.zarr"
    return partial(infer_shard, str(store), str(run), str(folder / "model"), told)


@dataclass(frozen=True)
class Turn:
    """Shards a second, and the share of the machine that others used meanwhile."""

    rate: float
    elsewhere: float


def timed(work: Callable[[], int]) -> Turn:
    """Let some shards be done and take the time."""
    before, began = others_seconds(), time.perf_counter()
    n_shards = work()
    elapsed = time.perf_counter() - began
    return Turn(n_shards / elapsed, (others_seconds() - before) / elapsed / (psutil.cpu_count() or 1))


def others_seconds() -> float:
    """Return the time that the processors have worked for others than this process and its children."""
    times, own = psutil.cpu_times(), psutil.Process()
    busy = sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)
    ours = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(busy - sum(each.user + each.system for each in ours))


def by_dask(workers: Workers, task: Task, n_each: int) -> int:
    """Do shards as a stage of a run does."""
    sizes = dict.fromkeys(range(n_each * workers.n_workers), 1)
    with tempfile.TemporaryDirectory() as name:
        run_shards(workers, task, sizes, Ledger(Path(name), Path(task.args[1]), "bench"), SilentView())
    return len(sizes)


def by_team(team: Team) -> int:
    """Do shards without Dask."""
    return team.take_turn().n_items


def play(asked: argparse.Namespace, n_rounds: int) -> list[dict[str, Turn]]:
    """Let all four take turns."""
    command = (sys.executable, __file__, *sys.argv[1:], SERVE)
    task = make_task(asked.folder, "dask", asked)
    with ExitStack() as stack:
        turns: dict[str, Callable[[], int]] = {}
        for n in (1, 2):
            workers = stack.enter_context(open_workers(settings(asked, n).cluster, progress=SilentView()))
            turns[f"dask {n}"] = partial(by_dask, workers, task, asked.each)
            team = Team(Contender(f"bare {n}", (*command, str(n - 1)), n))
            stack.callback(team.close)
            team.share = asked.each
            turns[f"bare {n}"] = partial(by_team, team)
        for work in turns.values():
            work()  # imports, and the check of the engine
        rounds = []
        for number in range(n_rounds):
            names = list(turns) if number % 2 == 0 else list(turns)[::-1]
            with locked(asked.lock):
                rounds.append({name: timed(turns[name]) for name in names})
        return rounds


def tell(rounds: list[dict[str, Turn]], what: str) -> None:
    """Print rates and ratios, medians and quartiles."""

    def ratio(over: str, under: str, by: int = 1) -> str:
        found = quartiles([100 * turns[over].rate / turns[under].rate / by for turns in rounds])
        return f"{found[1]:.1f} % [{found[0]:.1f}, {found[2]:.1f}]"

    quiet = sum(all(turn.elsewhere <= DISTURBED for turn in turns.values()) for turns in rounds)
    lines = [f"{what}, {len(rounds)} rounds, {quiet} of them quiet"]
    for name in rounds[0]:
        middle = quartiles([turns[name].rate for turns in rounds])[1]
        lines.append(f"{name}: {middle:.3f} shards/s")
    lines.append(f"of linear, Dask: {ratio('dask 2', 'dask 1', 2)}")
    lines.append(f"of linear, without Dask: {ratio('bare 2', 'bare 1', 2)}")
    lines.append(f"Dask over none, 1: {ratio('dask 1', 'bare 1')}; 2: {ratio('dask 2', 'bare 2')}")
    print("\n".join(lines), flush=True)  # noqa: T201


def serve_shards(folder: Path, way: str, asked: argparse.Namespace) -> None:
    """Be a process without Dask."""
    task = make_task(folder, way, asked)
    shards = itertools.cycle(range(int(way), asked.stars // asked.shard_stars, 2))

    def work(n_shards: int) -> None:
        for shard in itertools.islice(shards, n_shards):
            task(shard)

    work(1)
    serve({}, work)


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stars", type=int, default=512)
    parser.add_argument("--shard-stars", type=int, default=64)
    parser.add_argument("--each", type=int, default=4, help="shards of a worker in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", default="kernel")
    parser.add_argument("--precision", default="exact")
    parser.add_argument("--lock", type=Path)
    parser.add_argument(SERVE, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.folder.mkdir(exist_ok=True)
    if asked.serve:
        serve_shards(asked.folder, asked.serve, asked)
        return
    prepare(asked.folder, asked)
    rounds = play(asked, asked.rounds)
    quiet = [turns for turns in rounds if all(turn.elsewhere <= DISTURBED for turn in turns.values())]
    tell(rounds, f"{asked.engine} {asked.precision}, shards of {asked.shard_stars} stars")
    if 0 < len(quiet) < len(rounds):
        tell(quiet, "the quiet ones")


if __name__ == "__main__":
    main()
