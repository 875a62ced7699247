"""What rounding does to a catalogue: the gate's measures for common ways to speed up a network.

    PYTHONPATH=tests python tests/bench/bench_precision.py [--model RUN] [--stars 16]

Plain bfloat16 autocast of torch, and TF32 emulated on the CPU (operands rounded to 10 bits, sums in float32),
against exact float32 on the same noise; and the engines that can be used here. --model: folder of a model or
of a run; without one, the stand-in of `doctor --gate` is trained.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rounding_engines import AutocastEngine, RoundingEngine, to_tf32

from apogee_batch.inference.choose import available_engines, make_engine
from apogee_batch.inference.engines import Engine
from apogee_batch.inference.gate import GATE_SNRS, judge, predict_at_snrs
from apogee_batch.inference.gate_spectra import simulate_spectra
from apogee_batch.inference.torch_engine import TorchEngine
from apogee_batch.network.memory import keep_freed_memory
from apogee_batch.run.doctor import load_network

N_REALIZATIONS = 100


def main() -> None:
    """Compare and print, for each engine, the worst label at each signal-to-noise ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--stars", type=int, default=16)
    asked = parser.parse_args()
    keep_freed_memory()
    trained, network = load_network(asked.model, say=print)
    torch.set_num_threads(1)
    engines: dict[str, Engine] = {
        "bfloat16 autocast": AutocastEngine(*trained),
        "TF32, emulated": RoundingEngine(*trained, to_tf32),
    }
    for offer in available_engines():
        if offer.name != "torch" and not offer.reason:
            engines[f"{offer.name} {offer.precision}"] = make_engine(offer, *trained)
    spectra = simulate_spectra(asked.stars)
    wanted = predict_at_snrs(TorchEngine(*trained), spectra, n_realizations=N_REALIZATIONS)
    print(f"network: {network}; {asked.stars} stars; largest of the three labels")  # noqa: T201
    print(f"{'':18s} {'SNR':>5s} {'bias':>9s} {'rms':>9s} {'star':>7s} {'mean':>9s} {'clean':>9s}")  # noqa: T201
    for name, engine in engines.items():
        report = judge(
            engine, predict_at_snrs(engine, spectra, n_realizations=N_REALIZATIONS), wanted, spectra
        )
        for snr in GATE_SNRS:
            rows = [row for row in report.rows if row.snr == snr]
            bias = max((row.sigma_bias for row in rows), key=abs)
            star = max((row.worst_ratio for row in rows), key=lambda ratio: abs(ratio - 1))
            rms, mean, clean = (
                np.max([getattr(row, measure) for row in rows])
                for measure in ("sigma_rms", "mean_shift", "clean_shift")
            )
            print(  # noqa: T201
                f"{name:18s} {snr:5.0f} {bias:9.3%} {rms:9.3%} {star:7.4f} {mean:9.5f} {clean:9.5f}"
            )


if __name__ == "__main__":
    main()
