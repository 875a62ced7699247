"""A user's commands on a real Slurm: what comes out is what comes out of one process."""

import os
from pathlib import Path

import pytest
from commandline import CommandLine
from night import WAIT_S, Night, assert_nothing_is_left, submitted
from rig import Slurm
from small_survey import GPU_JOB, SmallSurvey, content_hashes

from apogee_batch.run.clusters import open_workers
from apogee_batch.run.config import load_config

LABELS = ("attached.json", "labels.parquet", "unmatched_labels.parquet")  # not of ingest


def test_ingest_on_both_nodes_writes_the_store_of_one_process(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    store = tmp_path / "s.zarr"
    config = small_survey.write_config(tmp_path / "c.toml")
    apogee(*small_survey.ingest_words(store), "--config", config, timeout_s=WAIT_S)
    hashes = content_hashes(small_survey.store)
    assert content_hashes(store) == {
        name: value for name, value in hashes.items() if Path(name).name not in LABELS
    }
    logs = store / "ingest" / "logs"
    assert list(logs.glob("job-*.log")), "one of the two jobs may come too late"
    assert_nothing_is_left(slurm, store, logs)


def test_a_run_that_trains_on_both_nodes_publishes_the_bytes_of_one_process(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = small_survey.write_config(tmp_path / "c.toml")
    said = apogee(*small_survey.run_words(run), "--config", config, timeout_s=WAIT_S).said
    assert "workers: up to 2 in slurm jobs (gpu)" in said
    assert "WARNING" not in said
    small_survey.assert_same_catalog(run)
    assert_nothing_is_left(slurm, run, run / "logs")


def test_both_nodes_do_shards_and_each_job_sees_its_gpu(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    night = Night(apogee, slurm, small_survey, tmp_path)
    prologue = ['echo "$(hostname) has GPU $CUDA_VISIBLE_DEVICES"']
    with night.program(job={"prologue": prologue}) as program:
        ended = night.finish(program)
    assert "WARNING" not in ended.said
    assert night.hosts() == set(slurm.nodes)
    told = [(night.logs / f"job-{job}.log").read_text() for job in submitted(night.logs)]
    assert sorted(text.splitlines()[0] for text in told) == ["n1 has GPU 0", "n2 has GPU 0"]


def test_each_process_of_a_job_has_a_gpu_of_its_own(
    slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", str(slurm.conf))
    gpu = GPU_JOB | {"gres": "gpu:2", "processes": 2, "cores": 2}
    config = load_config(None, small_survey.settings(cluster={"workers": 4, "gpu": gpu}))
    with open_workers(config.cluster, logs=tmp_path / "logs") as workers:
        workers.crew.ask(None)
        seen = [
            (place.submit(os.getenv, "SLURMD_NODENAME"), place.submit(os.getenv, "CUDA_VISIBLE_DEVICES"))
            for place in workers.crew.places(4)
        ]
        assert sorted((node.result(), gpu.result()) for node, gpu in seen) == [
            ("n1", "0"),
            ("n1", "1"),
            ("n2", "0"),
            ("n2", "1"),
        ]
        assert len(slurm.running()) == 2
    slurm.wait_empty(timeout_s=10)


def test_two_workers_of_slurm_train_the_network_of_two_local_ones(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, tmp_path: Path
) -> None:
    config = small_survey.write_config(tmp_path / "c.toml")
    models = {kind: tmp_path / kind for kind in ("slurm", "local")}
    for kind, out in models.items():
        words = ["train", small_survey.store, "--out", out, "--config", config, "--train-workers", 2]
        apogee(*words, "--cluster", kind, timeout_s=WAIT_S)
    weights = {kind: (out / "model.safetensors").read_bytes() for kind, out in models.items()}
    assert weights["slurm"] == weights["local"]
    assert len(submitted(models["slurm"] / "logs")) == 2
    assert_nothing_is_left(slurm, models["slurm"], models["slurm"] / "logs")
