"""A rank of a training on each node: whatever takes one away, the model has the bytes of no trouble."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGSTOP

import pytest
from commandline import CommandLine, Program
from night import JOB_NAMES, assert_nothing_is_left, submitted
from pids import Pid
from rig import Job, Slurm
from small_survey import SmallSurvey

from apogee_batch.network.metrics import METRICS_FILE, read_metrics
from apogee_batch.run import commands
from apogee_batch.run.config import load_config
from apogee_batch.run.gang.spec import GANG
from apogee_batch.run.progress import SilentView

N_RANKS = 2
EPOCHS = 6  # of the main phase, each long enough to be disturbed in
STEPS = 8
DISTURBED_AFTER = 2
MODEL = ("model.safetensors", "model.json")
WAIT_S = 150.0  # of a busy machine


@dataclass
class Training:
    """A training by two ranks on the nodes of the rig.

    Attributes
    ----------
    apogee : CommandLine
    slurm : Slurm
    survey : SmallSurvey
    undisturbed : Path
        Model that ranks in this process made.
    folder : Path
        Where model and settings are.
    """

    apogee: CommandLine
    slurm: Slurm
    survey: SmallSurvey
    undisturbed: Path
    folder: Path

    @property
    def out(self) -> Path:
        """Folder of the model."""
        return self.folder / "model"

    @contextmanager
    def program(self, frozen_after_s: float = 300.0) -> Iterator[Program]:
        """Start it and wait until some epochs are over."""
        survey = SmallSurvey(
            self.survey.survey, self.survey.folder, str(self.undisturbed.parent / "gang.toml")
        )
        config = survey.write_config(self.folder / "c.toml", cluster={"frozen_after_s": frozen_after_s})
        words = ["train", survey.store, "--out", self.out, "--config", config, "--train-workers", N_RANKS]
        with self.apogee.program(*words) as program:
            yield program

    def wait_epochs(self, program: Program, n_epochs: int = DISTURBED_AFTER) -> list[Job]:
        """Wait until some epochs are over; see that others are not, and return the jobs of the ranks."""
        program.wait_until(lambda: self.n_epochs() >= n_epochs, f"{n_epochs} epochs are over", WAIT_S)
        assert self.n_epochs() < EPOCHS, program.story("too late to disturb it")
        jobs = self.slurm.running(JOB_NAMES)
        assert {job.node for job in jobs} == set(self.slurm.nodes)
        return jobs

    def n_epochs(self) -> int:
        """Return how many epochs are over."""
        return len(read_metrics(self.out / METRICS_FILE))

    def find_rank(self, rank: int) -> tuple[Job, Pid]:
        """Return the job and the process of a rank."""
        found = [
            (job, pid)
            for job in self.slurm.running(JOB_NAMES)
            for pid in self.slurm.processes(job.job_id)
            if "apogee_batch.run.gang.rank" in pid.command and pid.command[-2] == str(rank)
        ]
        assert len(found) == 1, found
        return found[0]

    def finish(self, program: Program) -> str:
        """See that it ends with the undisturbed model and leaves nothing; return what it said."""
        said = program.succeed(WAIT_S).said
        for name in MODEL:
            assert (self.out / name).read_bytes() == (self.undisturbed / name).read_bytes(), name
        epochs = [line["epoch"] for line in read_metrics(self.out / METRICS_FILE)]
        assert epochs == [line["epoch"] for line in read_metrics(self.undisturbed / METRICS_FILE)]
        assert not (self.out / GANG).exists()
        assert_nothing_is_left(self.slurm, self.out, self.out / "logs")
        return said


def losses_told(said: str) -> list[str]:
    """Return what was said of each loss; see that the epochs before it were kept."""
    losses = re.findall(
        r"^WARNING: the training: (.*); all ranks go on from epoch (\d+)$", said, re.MULTILINE
    )
    for _, epoch in losses:
        assert int(epoch) >= DISTURBED_AFTER
        assert f"train: going on after epoch {epoch}" in said
    return [text for text, _ in losses]


@pytest.fixture(scope="module")
def undisturbed(
    small_survey: SmallSurvey, tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The model of two ranks on this host that nobody disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    recipe, out = folder / "gang.toml", folder / "model"
    text = Path(tiny_recipe).read_text().replace("max_epochs = 2\n", f"max_epochs = {EPOCHS}\n", 1)
    recipe.write_text(f"{text}min_steps_per_epoch = {STEPS}\ndropout = 0.1\nnoise = 0.05\n")
    settings = SmallSurvey(small_survey.survey, small_survey.folder, str(recipe)).settings("serial")
    settings["training"]["workers"] = N_RANKS
    commands.train(small_survey.store, out, config=load_config(None, settings), progress=SilentView())
    return out


@pytest.fixture
def training(
    apogee: CommandLine, slurm: Slurm, small_survey: SmallSurvey, undisturbed: Path, tmp_path: Path
) -> Training:
    """A training that is about to begin."""
    return Training(apogee, slurm, small_survey, undisturbed, tmp_path)


def test_ranks_on_two_nodes_give_the_model_of_ranks_on_one_host(training: Training) -> None:
    with training.program() as program:
        training.wait_epochs(program)
        said = training.finish(program)
    assert losses_told(said) == []
    assert len(submitted(training.out / "logs")) == N_RANKS


def test_a_job_that_is_cancelled_costs_an_epoch(training: Training) -> None:
    with training.program() as program:
        lost = training.wait_epochs(program)[0]
        training.slurm.cancel(lost.job_id)
        said = training.finish(program)
    assert len(losses_told(said)) == 1
    assert f"CANCELLED on {lost.node}" in said
    assert len(submitted(training.out / "logs")) == N_RANKS + 1


def test_a_node_that_crashes_costs_an_epoch(training: Training) -> None:
    with training.program() as program:
        lost = training.wait_epochs(program)[-1]
        training.slurm.crash(lost.node)
        said = training.finish(program)
    assert len(losses_told(said)) == 1


def test_ranks_that_are_killed_or_freeze_cost_an_epoch_each_and_no_job(training: Training) -> None:
    with training.program(frozen_after_s=8) as program:
        places = []
        for rank, (n_epochs, signal_) in enumerate(
            ((DISTURBED_AFTER, SIGKILL), (DISTURBED_AFTER + 2, SIGSTOP))
        ):
            training.wait_epochs(program, n_epochs)
            job, pid = training.find_rank(rank)
            assert pid.send(signal_)
            places.append(f"rank {rank} on {job.node} (job {job.job_id})")
        said = training.finish(program)
    killed, frozen = losses_told(said)
    assert killed.startswith(f"{places[0]} was ended by SIGKILL")
    assert frozen.startswith(f"{places[1]} has said nothing")
    assert len(submitted(training.out / "logs")) == N_RANKS
