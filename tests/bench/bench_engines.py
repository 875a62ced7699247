"""How many stars a second each engine does, against the published loop as run and tuned.

    python tests/bench/bench_engines.py [--rounds 5] [--seconds 2] [--peak GFLOPS] [--only NAME ...]

All do the whole inference of simulated stars in memory: noise, 1 + 100 forward passes a star, mean and
scatter; reading spectra and writing the catalogue are left out, for the published loop too. Engines run in
one process a core; the published loop in each split of the cores (processes x threads), the faster of which
counts. `as run` is what malloc does by default, `tuned` keeps freed memory by environment variables; ours
keep it by themselves. Before anything is timed all do the same stars, and the labels are compared with
torch's: those of an exact engine agree to rounding, those of the published loop, whose noise is another,
within its scatter. --peak: multiply-adds of float32 that all cores together can do, in GFLOP/s; those of 16
bits, which `fast` is held against, are twice as many. --lock: a file to lock during each round, so that
several comparisons on a machine take turns.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from pairs import Contender, Team, Turn, is_quiet, locked, play, quartiles, ratio_text, serve
from published_loop import TUNED, PublishedLoop

from apogee_batch.inference import kernel_engine, openvino_engine
from apogee_batch.inference.engines import Engine
from apogee_batch.inference.estimates import estimate_labels
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.network.model import SpectrumNet, initialise_kaiming
from apogee_batch.network.scaling import OFFICIAL_SCALER, InputTransform
from apogee_batch.schema import DoubleArray, FloatArray
from apogee_batch.survey.populations import draw_star
from apogee_batch.survey.simulate import simulate_flux
from apogee_batch.survey.simulate_exposure import observe

GFLOP_PER_STAR = 5.625  # 101 forward passes of 55.7 MFLOP
N_STARS = 16
N_CHECKED = 4
N_REALIZATIONS = 100
N_CPUS = os.cpu_count() or 1
PUBLISHED = "published"
AS_RUN, TUNED_NAME = "published as run", "published tuned"
EXACT_SCATTER = 2e-4  # by which sigma may differ from torch's
FAST_SCATTER = 0.02  # of one star; `doctor --gate` judges the mean of many
DIFFERS = "DIFFERS"
OTHER_NOISE = 0.5  # 100 draws measure sigma to 7 percent: three labels of four stars lie within this

Estimate = Callable[[FloatArray, FloatArray], tuple[DoubleArray, DoubleArray, DoubleArray]]


def simulate(n_stars: int) -> tuple[FloatArray, FloatArray]:
    """Return flux and err of some simulated stars, with gaps, spikes and sky lines."""
    spectra = []
    for index in range(n_stars):
        star = draw_star(1, index)
        seen = observe(
            simulate_flux(star), snr=star.snr, n_visits=1, velocity_km_s=0, rng=np.random.default_rng(index)
        )
        spectra.append((seen.flux, seen.err))
    flux, err = (np.stack(each) for each in zip(*spectra, strict=True))
    return flux, err


def make_engine(kind: str) -> Engine:
    """Return an engine with a network that has learned nothing: its speed is that of any other."""
    model, transform = make_network(), InputTransform("contrast")
    name, _, precision = kind.partition("-")
    if name == "torch":
        return TorchEngine(model, transform, OFFICIAL_SCALER)
    if name == "openvino":
        return openvino_engine.OpenVinoEngine(model, transform, OFFICIAL_SCALER)
    return kernel_engine.KernelEngine(
        model, transform, OFFICIAL_SCALER, precision="fast" if precision == "fast" else "exact"
    )


def make_network() -> SpectrumNet:
    """Return the network that all contenders use."""
    model = SpectrumNet()
    initialise_kaiming(model, torch.Generator().manual_seed(1))
    return model.eval()


def make_estimate(kind: str) -> tuple[Estimate, int]:
    """Return what estimates some stars, and how many stars it takes best at once."""
    if kind == PUBLISHED:
        loop = PublishedLoop(make_network().state_dict(), InputTransform("contrast"), OFFICIAL_SCALER)

        def one_by_one(flux: FloatArray, err: FloatArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
            each = [loop.estimate(*star) for star in zip(flux, err, strict=True)]
            clean, mean, std = (np.stack(values) for values in zip(*each, strict=True))
            return clean, mean, std

        return one_by_one, 1
    keep_freed_memory()
    engine = make_engine(kind)

    def by_engine(flux: FloatArray, err: FloatArray) -> tuple[DoubleArray, DoubleArray, DoubleArray]:
        keys = [f"star{i}" for i in range(len(flux))]
        found = estimate_labels(engine, keys, flux, err, n_realizations=N_REALIZATIONS, run_seed=1)
        return found.clean, found.mean, found.std

    return by_engine, engine.stars_per_call


def serve_engine(kind: str, spectra: Path) -> None:
    """Be a process of a contender."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with np.load(spectra) as stored:
        flux, err = stored["flux"], stored["err"]
    estimate, multiple = make_estimate(kind)

    def work(n_stars: int) -> None:
        which = np.arange(n_stars) % len(flux)
        for start in range(0, n_stars, N_STARS):
            some = which[start : start + N_STARS]
            estimate(flux[some], err[some])

    labels = [values.tolist() for values in estimate(flux[:N_CHECKED], err[:N_CHECKED])]
    serve({"labels": labels, "multiple": multiple}, work)


def contenders(spectra: Path) -> list[Contender]:
    """Return what can be compared here; says what cannot."""
    kinds = ["torch"]
    for name, why_not in (
        ("openvino", openvino_engine.why_not("exact")),
        ("kernel-exact", kernel_engine.why_not("exact")),
        ("kernel-fast", kernel_engine.why_not("fast")),
    ):
        kinds += [] if why_not else [name]
        if why_not:
            print(f"{name}: left out: {why_not}")  # noqa: T201
    ours = [Contender(kind, _command(kind, spectra), N_CPUS) for kind in kinds]
    published = _command(PUBLISHED, spectra)
    return [
        Contender(
            f"{name} {n_processes}x{N_CPUS // n_processes}",
            published,
            n_processes,
            N_CPUS // n_processes,
            env,
        )
        for name, env in ((AS_RUN, {}), (TUNED_NAME, TUNED))
        for n_processes in sorted({1, N_CPUS})
    ] + ours


def _command(kind: str, spectra: Path) -> tuple[str, ...]:
    return (sys.executable, __file__, "--serve", kind, str(spectra))


def start_teams(all_of_them: Sequence[Contender], seconds: float, lock: Path | None) -> list[Team]:
    """Start everything and fit the length of turns."""
    teams = []
    for contender in all_of_them:
        team = Team(contender)
        with locked(lock):
            for _ in range(2):  # the first trial warms up, the second knows roughly how long it may take
                team.fit_share(seconds, team.ready[0]["multiple"])
        teams.append(team)
    return teams


def compare(teams: Sequence[Team]) -> list[str]:
    """Return how the labels of each team agree with torch's, a line a team."""
    found = {team.contender.name: np.array(team.ready[0]["labels"]) for team in teams}
    reference = found.get("torch")
    if reference is None:
        return ["torch takes no part: nothing was compared"]
    lines = []
    for name, (clean, mean, std) in found.items():
        limit = OTHER_NOISE if PUBLISHED in name else FAST_SCATTER if "fast" in name else EXACT_SCATTER
        away_clean = np.abs(clean - reference[0]).max(axis=0) / np.array(OFFICIAL_SCALER.std)
        away_mean = np.abs(mean - reference[1]) / reference[2]
        away_std = np.abs(std / reference[2] - 1)
        agrees = away_clean.max() < 1e-4 and away_mean.max() < limit and away_std.max() < limit
        lines.append(
            f"{name:24s} clean {away_clean.max():.0e} of a label's spread, mean {away_mean.max():.0e} sigma, "
            f"sigma {away_std.max():.0e}: {'agrees' if agrees else DIFFERS}"
        )
    return lines


def table(names: Sequence[str], rounds: Sequence[dict[str, Turn]], peak: float | None) -> list[str]:
    """Return a line for each contender: stars/s, ratios, GFLOP/s."""
    speed = {name: quartiles([turns[name].rate for turns in rounds]) for name in names}

    def best_split(way: str) -> str | None:
        splits = [name for name in names if name.startswith(way)]
        return max(splits, key=lambda name: speed[name][1], default=None)

    bases = [best_split(AS_RUN), best_split(TUNED_NAME)]
    lines = [f"{'':24s} {'stars/s [quartiles]':22s} {'x as run':21s} {'x tuned':21s} GFLOP/s  of peak"]
    for name in names:
        low, rate, high = speed[name]
        ratios = [ratio_text(rounds, name, base) if base else "-" for base in bases]
        useful = rate * GFLOP_PER_STAR
        share = f"{useful / peak / (2 if 'fast' in name else 1):.0%}" if peak else "-"
        speeds = f"{rate:.1f} [{low:.1f}, {high:.1f}]"
        lines.append(f"{name:24s} {speeds:22s} {ratios[0]:21s} {ratios[1]:21s} {useful:7.0f}  {share}")
    return lines


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one turn")
    parser.add_argument("--peak", type=float, help="GFLOP/s of all cores together")
    parser.add_argument("--only", nargs="+", help="contenders whose name contains one of these")
    parser.add_argument("--lock", type=Path, help="a file to lock during each round")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Compare, or be one of those that are compared."""
    asked = parse()
    if asked.serve:
        serve_engine(asked.serve[0], Path(asked.serve[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        spectra = Path(folder) / "spectra.npz"
        flux, err = simulate(N_STARS)
        np.savez(spectra, flux=flux, err=err)
        wanted = asked.only or [""]
        taking_part = [one for one in contenders(spectra) if any(text in one.name for text in wanted)]
        teams = start_teams(taking_part, asked.seconds, asked.lock)
        rounds = play(teams, asked.rounds, lock=asked.lock)
        lines = compare(teams)
        for team in teams:
            team.close()
    names = [team.contender.name for team in teams]
    quiet = [turns for turns in rounds if is_quiet(turns)]
    lines += ["", f"all {len(rounds)} rounds", *table(names, rounds, asked.peak)]
    if quiet and len(quiet) < len(rounds):
        lines += ["", f"the {len(quiet)} rounds that nobody disturbed", *table(names, quiet, asked.peak)]
    elif not quiet:
        lines += ["", "every round was disturbed by others: the ratios hold better than the speeds"]
    taken = [f"{max(turn.elsewhere for turn in turns.values()):.0%}" for turns in rounds]
    lines += ["", f"of the machine others took at most, round by round: {' '.join(taken)}"]
    print("\n".join(lines))  # noqa: T201
    if any(DIFFERS in line for line in lines):
        sys.exit("the labels are not the same: the speeds mean nothing")


if __name__ == "__main__":
    main()
