"""What torch is told to compute with while it trains, and that it is told the earlier again afterwards."""

import torch
from training_sets import make_training_set, tiny_recipe

from apogee_batch.network.training import train

Flags = tuple[bool, ...]


def flags() -> Flags:
    """Return what torch would do with convolutions on a GPU."""
    cudnn = torch.backends.cudnn
    return cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32


def test_cudnn_trains_without_tf32_and_repeatably() -> None:
    seen: list[Flags] = []
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=True):  # as torch has it
        before = flags()
        train(
            make_training_set(),
            tiny_recipe(),
            seed=1,
            n_threads=1,
            on_epoch=lambda *_: seen.append(flags()),
        )
        assert flags() == before
    assert before == (True, False, False, True)
    assert set(seen) == {(True, True, False, False)}
