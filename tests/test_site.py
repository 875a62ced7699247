"""The settings of a site are read as dask-jobqueue means them, and nothing of them is lost in silence."""

from pathlib import Path

import pytest

from apogee_batch.errors import UsageError
from apogee_batch.run.clusters.site import read_site
from apogee_batch.run.config import load_config

SITE = """
jobqueue:
  perlmutter:
    name: dask-worker
    queue: gpu,preempt
    account: astro
    walltime: '04:00:00'
    memory: 64GB
    cores: 4
    job-cpu: 8
    job_mem: 70G
    processes: 2
    job-extra-directives: ['--qos=high', '--licenses=scratch']
    job-directives-skip: ['--cpus-per-task']
    job-script-prologue: ['module load python']
    interface: ib0
    local-directory: $TMPDIR
    python: /opt/python
    shebang: '#!/bin/bash -l'
    worker-extra-args: ['--resources GPU=1', "--preload 'a b.py'"]
    death-timeout: 60
    log-directory: null
    extra: null
    scheduler-options: {}
    worker-command: distributed.cli.dask_worker
  odd: 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which Dask looks for its configuration."""
    monkeypatch.setattr("dask.config.paths", [str(tmp_path)])
    (tmp_path / "jobqueue.yaml").write_text(SITE)
    (tmp_path / "distributed.yaml").write_text("distributed:\n  version: 2\n")
    return tmp_path


def add(folder: Path, text: str) -> None:
    (folder / "more.yaml").write_text(f"jobqueue:\n  more:\n    {text}\n")


def test_both_kinds_of_jobs_get_the_settings_of_the_site(folder: Path) -> None:
    cluster = load_config(None, {"cluster": {"site": "perlmutter", "kind": "slurm"}}).cluster
    assert cluster.cpu == cluster.gpu
    assert cluster.interface == "ib0"
    assert cluster.gpu.model_dump(exclude_defaults=True) == {
        "partition": "gpu,preempt",
        "account": "astro",
        "walltime": "04:00:00",
        "memory": "64GB",
        "cores": 8,
        "job_memory": "70GiB",
        "processes": 2,
        "directives": ("--qos=high", "--licenses=scratch"),
        "skip_directives": ("--cpus-per-task",),
        "prologue": ("module load python",),
        "local_directory": "$TMPDIR",
        "python": "/opt/python",
        "shebang": "#!/bin/bash -l",
        "worker_args": ("--resources", "GPU=1", "--preload", "a b.py"),
    }
    assert [line.split(":")[0] for line in read_site("perlmutter", kind="slurm").not_used] == [
        "jobqueue.perlmutter.name is not used",
        "jobqueue.perlmutter.death-timeout is not used",
    ]


def test_flags_win_over_the_site_and_the_site_over_the_file(folder: Path, tmp_path: Path) -> None:
    toml = tmp_path / "run.toml"
    toml.write_text(
        "[cluster]\nsite = 'perlmutter'\nkind = 'slurm'\ninterface = 'eth0'\n"
        "[cluster.gpu]\naccount = 'mine'\nqos = 'kept'\nmemory = '1GB'\n[cluster.cpu]\nqos = 'other'\n"
    )
    cluster = load_config(toml, {"cluster": {"gpu": {"memory": "2GB"}, "cpu": {}}}).cluster
    assert (cluster.gpu.account, cluster.gpu.qos, cluster.gpu.memory) == ("astro", "kept", "2GB")
    assert (cluster.cpu.qos, cluster.cpu.memory, cluster.interface) == ("other", "64GB", "ib0")


def test_an_unknown_site_tells_which_there_are(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"no such name.* there are: odd, perlmutter .*jobqueue\.yaml"):
        read_site("nersc", kind="slurm")
    (folder / "jobqueue.yaml").write_text("#jobqueue:\n")
    with pytest.raises(UsageError, match=f"there are: none .looked in {folder}"):
        read_site("nersc", kind="slurm")


def test_defaults_of_dask_jobqueue_are_nobodys_settings(folder: Path) -> None:
    import dask_jobqueue  # noqa: F401  it adds them to Dask's configuration

    with pytest.raises(UsageError, match="no such name"):
        read_site("slurm", kind="slurm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("scheduler-options: {dashboard_address: ':1'}", "more.scheduler-options: it cannot be honoured"),
        ("worker-command: dask_cuda.cli", "more.worker-command: it cannot be honoured"),
        ("surprise: 1", "more.surprise: it cannot be honoured here; known are account,"),
        ("walltime: 4:00:00", "more.walltime: 14400 is a mere number; put the time into quotes"),
        ('worker-extra-args: ["a \'b"]', "more.worker-extra-args: .* cannot be split"),
        ("worker-extra-args: ['--nthreads 4']", "cluster.cpu.worker_args.0: '--nthreads'"),
        ("queue: 'a b'", "settings of more: cluster.cpu.partition: 'a b' is not of the form"),
        ("job-script-prologue: echo", "cluster.cpu.prologue: "),
        ("queue: [", "the settings of the site cannot be read: .*more.yaml"),
    ],
)
def test_what_cannot_be_honoured_is_an_error(folder: Path, text: str, said: str) -> None:
    add(folder, text)
    with pytest.raises(UsageError, match=said) as caught:
        load_config(None, {"cluster": {"site": "more", "kind": "slurm"}})
    assert "\n" not in str(caught.value)


def test_a_section_that_is_no_table_is_told(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"jobqueue\.odd: it should be a table"):
        read_site("odd", kind="slurm")


@pytest.mark.parametrize(
    ("text", "kind", "job"),
    [
        ("walltime: '00:30'", "lsf", {"walltime": "00:30:00"}),
        ("walltime: '00:30'", "slurm", {"walltime": "00:30"}),
        ("memory: 4000000000", "slurm", {"memory": "4000000000B"}),
        ("job-mem: '4000'", "slurm", {"job_memory": "4000MiB"}),
        ("mem: 4000000000", "lsf", {"job_memory": "4000000000B"}),
        ("project: a", "sge", {"account": "a"}),
        ("ncpus: 4", "lsf", {"cores": 4}),
        ("job-extra-directives: {+Big: true}", "htcondor", {"directives": ["+Big = True"]}),
        ("env-extra: [a]", "pbs", {"prologue": ["a"]}),
    ],
)
def test_words_of_other_queues(folder: Path, text: str, kind: str, job: dict[str, object]) -> None:
    add(folder, text)
    assert read_site("more", kind=kind).job == job
