"""What a small run costs beside its stars: the time from each command to its end, phase by phase.

    python tests/bench/bench_startup.py FOLDER [--stars 13] [--workers 2] [--realizations 100] [--repeats 3]
        [--other CHECKOUT]

FOLDER gets a simulated survey and a network that has learned nothing. Each command is a process of its own,
as a user's: `--help`, then ingest and run-catalog into new folders, run-catalog again with nothing left to
do, status and verify. `--workers 0` is `--cluster serial`. Prints medians.
"""

import argparse
import functools
import importlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

CHILD = "--child"
PHASES = {  # what is timed inside a command: module, name
    "plan": ("apogee_batch.run.catalog_command", "begin_run"),
    "train or load model": ("apogee_batch.run.catalog_run", "_get_model"),
    "all shards": ("apogee_batch.run.catalog_run", "run_shards"),
    "publish": ("apogee_batch.run.catalog_run", "publish_catalog"),
    "page": ("apogee_batch.run.catalog_command", "make_page"),
    "plan ingest": ("apogee_batch.run.ingest_command", "plan_ingest"),
    "ingest": ("apogee_batch.run.ingest_command", "run_ingest"),
}


MODULES = {"ingest": "apogee_batch.run.ingest_command", "run-catalog": "apogee_batch.run.catalog_command"}


def child(stamps: Path, arguments: Sequence[str]) -> None:
    """Run a command of the program in this process, and note when its phases begin and end."""
    times: dict[str, float] = {"python is up": time.time()}
    from apogee_batch import cli

    if arguments[0] in MODULES:
        importlib.import_module(MODULES[arguments[0]])
        times["imports"] = time.time()
        for phase, (module, name) in PHASES.items():
            note_calls(times, phase, sys.modules.get(module), name)
        note_workers(times)
    sys.argv = ["apogee-batch", *arguments]
    try:
        cli.main()
    finally:
        times["command"] = time.time()
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cpu = [usage.ru_utime + usage.ru_stime for usage in used]
        stamps.write_text(json.dumps({"times": times, "cpu": cpu, "peak_mib": used[0].ru_maxrss / 1024}))


def note_calls(times: dict[str, float], phase: str, module: Any, name: str) -> None:
    """Note begin and end of each call of a function, where the program has it."""
    call = getattr(module, name, None)
    if call is None:
        return

    @functools.wraps(call)
    def timed(*args: Any, **kwargs: Any) -> Any:
        times.setdefault(f"{phase} <", time.time())
        try:
            return call(*args, **kwargs)
        finally:
            times[f"{phase} >"] = time.time()

    setattr(module, name, timed)


def note_workers(times: dict[str, float]) -> None:
    """Note when the workers are asked for, there, let go and gone."""
    from contextlib import contextmanager

    for module in [sys.modules.get(name) for name in MODULES.values()]:
        opener = getattr(module, "open_workers", None)
        if opener is None:
            continue

        @contextmanager
        def timed(*args: Any, opener: Callable[..., Any] = opener, **kwargs: Any) -> Any:
            times["workers start <"] = time.time()
            with opener(*args, **kwargs) as workers:
                times["workers start >"] = time.time()
                yield workers
                times["workers stop <"] = time.time()
            times["workers stop >"] = time.time()

        vars(module)["open_workers"] = timed


def run(folder: Path, tree: Path, arguments: Sequence[str]) -> dict[str, float]:
    """Run a command of a checkout in a process of its own; return seconds of it and of its phases."""
    stamps, script = folder / "stamps.json", tree / "tests" / "bench" / Path(__file__).name
    environment = os.environ | {"PYTHONPATH": str(tree)}
    words = [sys.executable, str(script), CHILD, str(stamps), *arguments]
    began = time.time()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, env=environment)
    ended = time.time()
    noted = json.loads(stamps.read_text())
    times = noted["times"]
    seconds = {"in all": ended - began, "python starts": times["python is up"] - began}
    if "imports" in times:
        seconds["imports"] = times["imports"] - times["python is up"]
    for name, at in times.items():
        if name.endswith(" >"):
            seconds[name[:-2]] = at - times[name[:-2] + " <"]
    seconds["python ends"] = ended - times["command"]
    cpu = {"CPU s, this process": noted["cpu"][0], "CPU s, workers": noted["cpu"][1]}
    return {**seconds, **cpu, "peak MiB": noted["peak_mib"]}


def prepare(survey: Path, model: Path, n_stars: int) -> None:
    """Make survey and model unless they are there."""
    if not survey.is_dir():
        from apogee_batch.survey.simulate import simulate_survey

        simulate_survey(survey, n_stars=n_stars, seed=1)
    if not model.is_dir():
        import torch

        from apogee_batch.network.model import SpectrumNet
        from apogee_batch.network.official import import_official

        torch.manual_seed(1)
        torch.save(SpectrumNet().state_dict(), model.with_suffix(".pt"))
        import_official(model.with_suffix(".pt"), model)


def say(text: str) -> None:
    """Print."""
    print(text, flush=True)  # noqa: T201


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stars", type=int, default=13)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--realizations", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engine", default="", help="of run-catalog; empty: its own choice")
    parser.add_argument("--other", type=Path, help="another checkout, which is measured in turn")
    asked = parser.parse_args()
    asked.folder.mkdir(exist_ok=True)
    survey, model = asked.folder / f"survey{asked.stars}", asked.folder / "model"
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:  # a process that knows torch is a large parent
        pool.submit(prepare, survey, model, asked.stars).result()
    store, out = asked.folder / f"s{asked.stars}.zarr", asked.folder / f"run{asked.stars}"
    where = ["--workers", str(asked.workers)] if asked.workers else ["--cluster", "serial"]
    summary = next(survey.glob("allStar*.fits"))
    read = ["ingest", str(survey / "redux"), "--allstar", str(summary), "--store", str(store), *where]
    make = ["run-catalog", str(store), "--model", str(model), "--out", str(out), "--device", "cpu", *where]
    make += ["--realizations", str(asked.realizations)]
    make += ["--engine", asked.engine] if asked.engine else []
    commands = {
        "--help": ["--help"],
        "ingest": read,
        "run-catalog": make,
        "run-catalog, finished before": make,
        "status": ["status", str(out)],
        "verify": ["verify", str(out)],
    }
    trees = {"": Path(__file__).resolve().parents[2]} | ({"other: ": asked.other} if asked.other else {})
    found: dict[str, list[dict[str, float]]] = {own + name: [] for name in commands for own in trees}
    for _ in range(asked.repeats):
        for own, tree in trees.items():
            for place in (store, out):
                shutil.rmtree(place, ignore_errors=True)
            for name, arguments in commands.items():
                found[own + name].append(run(asked.folder, tree, arguments))
    say(f"{asked.stars} stars, {asked.realizations} realizations, {' '.join(where)}, {os.cpu_count()} cores")
    for name, runs in found.items():
        say(name)
        for phase in runs[0]:
            say(f"  {phase}: {statistics.median(one.get(phase, 0.0) for one in runs):.2f}")


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
