"""The lines of a training's epochs."""

import errno
import os
from pathlib import Path

import pytest

from apogee_batch.network.metrics import METRICS_FILE, append_metrics, read_metrics
from apogee_batch.network.state import EpochMetrics


def epoch_metrics(epoch: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        round_epoch=epoch,
        max_epochs=9,
        phase="main",
        round=0,
        n_spectra=10,
        n_steps=2,
        learning_rate=0.1,
        train_loss=0.5,
        dev_loss=0.5,
        dev_loss_by_type={},
        is_best=True,
        n_stale=0,
        patience=5,
    )


def test_the_line_of_an_epoch_is_on_the_disk_when_its_state_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, flushed = tmp_path / METRICS_FILE, list[bytes]()
    monkeypatch.setattr(os, "fsync", lambda _: flushed.append(path.read_bytes()))
    for epoch in (1, 2):
        append_metrics(path, epoch_metrics(epoch), seconds=1.5)
        assert flushed[-1] == path.read_bytes()
    assert len(flushed) == 2
    assert [line["epoch"] for line in read_metrics(path)] == [1, 2]


def test_a_full_disk_is_told_with_the_name_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        append_metrics(tmp_path / METRICS_FILE, epoch_metrics(1), seconds=1.5)
    assert caught.value.filename == str(tmp_path / METRICS_FILE)
