"""Jobs are handed in, asked after and taken back in bounded time, whatever the queue's commands do."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.programs import run_program
from apogee_batch.run.clusters.queues import JobEnd, JobState, is_innocent, open_queue
from apogee_batch.run.clusters.slurm_queue import SEPARATOR, SlurmQueue, directives, name_of
from apogee_batch.run.clusters.slurm_words import read_job_end

SCRIPT = """#!/bin/bash
#SBATCH -J apogee-gpu-1
#SBATCH --mem=4G -p "two words"
# another comment
exec worker
#SBATCH --too-late
"""
HEADER = SEPARATOR.join(("JOBID", "STATE", "NODELIST", "REASON", "START_TIME", "PRIORITY", "NAME"))
DOWN = "error: Batch job submission failed: Unable to contact slurm controller (connect failure)"
Fake = Callable[[str, str], Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put a shell script of a name on the PATH, where nothing of a real queue is."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("cat", "env", "sleep", "touch", "rm", "sh"):
        real = next(place for place in ("/bin", "/usr/bin") if Path(place, tool).exists())
        (folder / tool).symlink_to(Path(real, tool))
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.chdir(tmp_path)

    def make(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def queue() -> SlurmQueue:
    return SlurmQueue(timeout_s=2, pause_s=0.02)


def squeue_tells(fake: Fake, *rows: tuple[str, ...]) -> None:
    lines = [HEADER, *(SEPARATOR.join(row) for row in rows)]
    fake("squeue", "cat <<'END'\n" + "\n".join(lines) + "\nEND")


def test_a_job_is_handed_in_by_stdin_and_its_script_is_kept_for_its_owner(
    fake: Fake, queue: SlurmQueue, tmp_path: Path
) -> None:
    fake("sbatch", "cat >stdin; echo $# \"$@\" >arguments; echo 'welcome to the site'; echo 42")
    old = os.umask(0)
    try:
        assert queue.submit(SCRIPT, folder=tmp_path / "logs") == "42"
    finally:
        os.umask(old)
    assert (tmp_path / "stdin").read_text() == SCRIPT
    kept = tmp_path / "logs" / "job-42.sh"
    assert kept.read_text() == SCRIPT
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert (tmp_path / "arguments").read_text() == "6 --parsable -J apogee-gpu-1 --mem=4G -p two words\n"


def test_the_head_of_a_script_is_stronger_than_the_environment() -> None:
    assert directives(SCRIPT) == ["-J", "apogee-gpu-1", "--mem=4G", "-p", "two words"]
    assert directives('#!/bin/sh\n#SBATCH --comment="open\n#SBATCH -n 1\n') == ["-n", "1"]
    assert [name_of(options) for options in (["-J", "a"], ["--job-name=b"], ["-Jc"], ["-p", "x"], [])] == [
        *"abc",
        "",
        "",
    ]


def test_a_job_inherits_nothing_of_a_surrounding_job(
    fake: Fake, queue: SlurmQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped = ("SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURMD_NODENAME", "SQUEUE_STATES", "SCANCEL_INTERACTIVE")
    for name in (*dropped, "SBATCH_WAIT", "SBATCH_JOB_NAME", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.setenv(name, "1")
    for name in ("SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_ACCOUNT", "MY_OWN"):
        monkeypatch.setenv(name, "1")
    fake("sbatch", "env >environment; echo 1")
    queue.submit(SCRIPT, folder=tmp_path)
    found = {line.partition("=")[0] for line in (tmp_path / "environment").read_text().splitlines()}
    assert {"SLURM_CONF", "SLURM_CLUSTERS", "SBATCH_ACCOUNT", "MY_OWN"} <= found
    assert not found & {*dropped, "SBATCH_WAIT", "SBATCH_JOB_NAME", "CUDA_VISIBLE_DEVICES"}


def test_a_host_without_slurm_is_told_in_one_line(fake: Fake, queue: SlurmQueue, tmp_path: Path) -> None:
    with pytest.raises(ClusterError) as raised:
        queue.submit(SCRIPT, folder=tmp_path)
    assert str(raised.value) == (
        "sbatch: not found on this host (PATH); run on a login node of the cluster or use --cluster local"
    )
    assert queue.list(["1"]) is None
    assert queue.trouble.startswith("squeue: not found on this host")
    assert queue.explain(["1"]) == [queue.trouble]
    assert queue.ended("1") == JobEnd()
    with pytest.raises(ClusterError, match=r"^scancel: not found"):
        queue.cancel(["1"])


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("Invalid account or account/partition combination specified", "check `account` and `partition`"),
        ("Invalid partition name specified", "check `partition`"),
        ("Memory specification can not be satisfied", "lower `memory`"),
        ("Requested node configuration is not available", "no node has that"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "lower `walltime`"),
        ("Invalid generic resource (gres) specification", "check `gres`"),
        ("Invalid feature specification", "check `constraint`"),
        ("Invalid qos specification", "check `qos`"),
        ("AssocMaxSubmitJobLimit", "lower `workers`"),
        (
            "Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
            "`workers`",
        ),
    ],
)
def test_a_refused_job_is_told_with_its_remedy(
    fake: Fake, queue: SlurmQueue, tmp_path: Path, said: str, remedy: str
) -> None:
    fake(
        "sbatch",
        f"echo x >>calls; cat >&2 <<'END'\nsbatch: error: Batch job submission failed: {said}\nEND\nexit 1",
    )
    for ask in (lambda: queue.submit(SCRIPT, folder=tmp_path), lambda: queue.test(SCRIPT)):
        with pytest.raises(ClusterError) as raised:
            ask()
        assert said in str(raised.value)
        assert remedy in str(raised.value)
        assert "\n" not in str(raised.value)
        assert "Batch job submission failed" not in str(raised.value)
    assert (tmp_path / "calls").read_text() == "x\nx\n"  # what will not pass is not tried again


def test_a_hanging_sbatch_is_killed_with_all_its_children(fake: Fake, tmp_path: Path) -> None:
    fake("sbatch", "sleep 61 & echo $! >child; sleep 61")
    squeue_tells(fake)
    start = time.monotonic()
    with pytest.raises(
        ClusterError, match=r"sbatch: does not answer within 0\.3 s; is the Slurm controller up"
    ):
        SlurmQueue(timeout_s=0.3).submit(SCRIPT, folder=tmp_path)
    assert time.monotonic() - start < 5
    child = int((tmp_path / "child").read_text())
    assert not Path(f"/proc/{child}/cmdline").exists() or not Path(f"/proc/{child}/cmdline").read_bytes()


def test_a_job_that_a_hanging_sbatch_submitted_is_found_by_its_name(fake: Fake, tmp_path: Path) -> None:
    fake("sbatch", "echo x >>calls; sleep 61")
    squeue_tells(fake, ("7", "PENDING", "", "None", "N/A", "1", "apogee-gpu-1"), ("8", "RUNNING", *"nrs1x"))
    assert SlurmQueue(timeout_s=0.3).submit(SCRIPT, folder=tmp_path) == "7"
    assert (tmp_path / "calls").read_text() == "x\n"
    assert (tmp_path / "job-7.sh").exists()


def test_a_refusal_that_passes_is_tried_again(fake: Fake, queue: SlurmQueue, tmp_path: Path) -> None:
    fake("sbatch", f"if [ -f calls ]; then echo 9; else touch calls; echo '{DOWN}' >&2; exit 1; fi")
    squeue_tells(fake)
    assert queue.submit(SCRIPT, folder=tmp_path) == "9"


def test_a_job_is_not_sent_again_while_nobody_can_tell_whether_it_was_taken(
    fake: Fake, tmp_path: Path
) -> None:
    fake("sbatch", f"echo x >>calls; echo '{DOWN}' >&2; exit 1")
    fake("squeue", f"echo '{DOWN}' >&2; exit 1")
    start = time.monotonic()
    with pytest.raises(ClusterError, match=r"Unable to contact slurm controller .*scontrol ping"):
        SlurmQueue(timeout_s=0.4, pause_s=0.05).submit(SCRIPT, folder=tmp_path)
    assert time.monotonic() - start < 3
    assert (tmp_path / "calls").read_text() == "x\n"


def test_an_answer_without_a_job_id_is_an_error_that_repeats_it(
    fake: Fake, queue: SlurmQueue, tmp_path: Path
) -> None:
    fake("sbatch", "echo 'Submitted \033[1m to the cloud'")
    squeue_tells(fake)
    with pytest.raises(ClusterError, match=r"gave no job id but said: Submitted  ?\[1m to the cloud"):
        queue.submit(SCRIPT, folder=tmp_path)


def test_jobs_of_another_cluster_are_asked_for_there(fake: Fake, queue: SlurmQueue, tmp_path: Path) -> None:
    fake("sbatch", "echo '12;east'")
    fake("squeue", f"echo $SLURM_CLUSTERS >cluster; echo 'CLUSTER: east'; echo '{HEADER}'")
    assert queue.submit(SCRIPT, folder=tmp_path) == "12"
    assert queue.list(["12"]) == {}
    assert (tmp_path / "cluster").read_text() == "east\n"


def test_listed_are_own_jobs_that_were_asked_for(fake: Fake, queue: SlurmQueue) -> None:
    squeue_tells(
        fake,
        ("1", "RUNNING", "n[1-2]", "None", "2026-11-22T18:27:49", "7", "a b"),
        ("2", "PENDING", "", "Resources", "N/A", "6", "c"),
        ("3", "RUNNING", "n1", "None", "N/A", "6", "of others"),
    )
    assert queue.list(["1", "2", "99"]) == {
        "1": JobState("1", "RUNNING", "n[1-2]", "", "2026-11-22T18:27:49", "7", "a b"),
        "2": JobState("2", "PENDING", "", "Resources", "", "6", "c"),
    }
    assert queue.trouble == ""


@pytest.mark.parametrize(
    "body",
    [
        "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1",
        "exit 0",  # no jobs are told with a header
        "echo 'the queue is being mended'",
        "sleep 61",
    ],
)
def test_a_queue_that_cannot_be_asked_is_not_an_empty_one(fake: Fake, body: str) -> None:
    fake("squeue", body)
    queue = SlurmQueue(timeout_s=0.3)
    assert queue.list(["1"]) is None
    assert queue.trouble.startswith("squeue: ")
    assert queue.explain(["1"]) == [queue.trouble]
    squeue_tells(fake)
    assert queue.list(["1"]) == {}
    assert queue.trouble == ""


def test_waiting_jobs_are_explained_together(fake: Fake, queue: SlurmQueue) -> None:
    squeue_tells(
        fake,
        ("1", "PENDING", "", "Resources", "2026-11-22T18:40:00", "7", "a"),
        ("2", "PENDING", "", "Resources", "2026-11-22T18:37:49", "5", "b"),
        ("3", "PENDING", "", "PartitionTimeLimit", "N/A", "4", "c"),
        ("4", "RUNNING", "n1", "None", "2026-11-22T18:27:49", "3", "d"),
    )
    assert queue.explain(["1", "2", "3", "4"]) == [
        "job 3 waits: PartitionTimeLimit (priority 4); it asks for more than the partition gives",
        "2 jobs wait: Resources (start estimated 2026-11-22T18:37:49, priority 5-7)",
        "job 4 is RUNNING on n1",
    ]


@pytest.mark.parametrize(
    ("line", "text", "innocent"),
    [
        ("JobState=COMPLETED Reason=None ExitCode=0:0 NodeList=n1", "COMPLETED on n1", True),
        (
            "JobState=FAILED Reason=NonZeroExitCode ExitCode=127:0 NodeList=n2",
            "FAILED with exit code 127 on n2",
            False,
        ),
        ("JobState=FAILED Reason=x ExitCode=0:9 NodeList=n2", "FAILED by signal 9 on n2 (x)", False),
        (
            "JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 BatchHost=n2",
            "OUT_OF_MEMORY by signal",
            False,
        ),
        ("JobState=CANCELLED Reason=BeginTime ExitCode=0:0 NodeList=(null)", "CANCELLED", True),
        ("JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15 NodeList=n1", "TIMEOUT on n1", True),
        ("JobState=NODE_FAIL Reason=NodeDown ExitCode=0:0 NodeList=n1", "NODE_FAIL on n1", True),
        ("JobState=PREEMPTED ExitCode=0:0 NodeList=n1", "PREEMPTED on n1", True),
        ("what is this", "", False),
    ],
)
def test_the_end_of_a_job_is_told_and_judged(
    fake: Fake, queue: SlurmQueue, line: str, text: str, innocent: bool
) -> None:
    fake("scontrol", f"echo 'JobId=5 JobName=JobState=x {line} Power= '")
    end = queue.ended("5")
    assert end.text.startswith(text)
    assert end.is_innocent == is_innocent(end) == is_innocent(end.text) == innocent
    assert end.is_known == bool(text)


def test_states_are_judged_by_their_first_word() -> None:
    assert is_innocent("CANCELLED by user 0")
    assert is_innocent("CANCELLED+")
    assert not is_innocent("OUT_OF_MEMORY")
    assert not is_innocent("")
    assert not read_job_end("JobState=RUNNING NodeList=n1").is_known


def test_a_job_that_slurm_has_forgotten_ended_nobody_knows_how(fake: Fake, queue: SlurmQueue) -> None:
    fake("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert queue.ended("5") == JobEnd()
    assert str(queue.ended("5; rm -rf x")) == ""


def test_cancelling_what_is_gone_is_no_error(fake: Fake, queue: SlurmQueue, tmp_path: Path) -> None:
    gone = "scancel: error: Kill job error on job id"
    body = (
        f"echo '{gone} 1: Invalid job id specified\n{gone} 2: Job/step already completing or completed' >&2"
    )
    fake("scancel", f'echo "$@" >>arguments; {body}; exit 1')
    queue.cancel(["10", "9", "-u", "root"])
    queue.cancel([])
    assert (tmp_path / "arguments").read_text() == "9 10\n"
    fake("scancel", f"{body}; echo '{gone} 10: Access/permission denied' >&2; exit 1")
    with pytest.raises(ClusterError, match=r"Access/permission denied.*by hand: scancel 9 10$"):
        queue.cancel(["9", "10"])


def test_a_cancel_is_tried_again_while_the_controller_restarts(fake: Fake, queue: SlurmQueue) -> None:
    fake("scancel", f"if [ -f calls ]; then rm calls; else touch calls; echo '{DOWN}' >&2; exit 1; fi")
    queue.cancel(["9"])
    assert not Path("calls").exists()


def test_what_a_test_says_is_returned(fake: Fake, queue: SlurmQueue) -> None:
    fake("sbatch", "echo \"$@\" >arguments; echo 'sbatch: Job 15 to start at 2026-11-28T20:17:49' >&2")
    assert queue.test(SCRIPT) == "Job 15 to start at 2026-11-28T20:17:49"
    assert Path("arguments").read_text().startswith("--test-only -J apogee-gpu-1")


def test_a_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "sbatch").write_text("no interpreter")
    (tmp_path / "sbatch").chmod(0o755)
    with pytest.raises(ClusterError, match="sbatch: cannot be run on this host: Exec format error"):
        run_program(["sbatch"], environment={"PATH": str(tmp_path)}, timeout_s=1)


def test_a_program_that_leaves_its_input_unread_is_no_error(fake: Fake) -> None:
    fake("deaf", "exit 0")
    answer = run_program(["deaf"], environment=os.environ, timeout_s=5, stdin="x" * 1_000_000)
    assert answer.is_good


@pytest.mark.parametrize(
    ("kind", "submit", "said"),
    [
        ("pbs", "qsub", "12.server"),
        ("sge", "qsub", 'Your job 12 ("x") has been submitted'),
        ("lsf", "bsub", "Job <12> is"),
        ("htcondor", "condor_submit", "1 job(s) submitted to cluster 12."),
    ],
)
def test_other_queues_take_and_give_back_jobs(
    fake: Fake, tmp_path: Path, kind: str, submit: str, said: str
) -> None:
    queue = open_queue(kind, timeout_s=5)  # type: ignore[arg-type]
    # the last argument is the script, where there is one
    fake(submit, f"for last; do :; done; cat $last >got; echo '{said}'")
    fake("qdel", 'echo "$@" >cancelled')
    fake("condor_rm", 'echo "$@" >cancelled')
    fake("bkill", 'echo "$@" >cancelled')
    job_id = queue.submit(SCRIPT, folder=tmp_path)
    assert (tmp_path / "got").read_text() == (tmp_path / f"job-{job_id}.sh").read_text() == SCRIPT
    queue.cancel([job_id])
    assert (tmp_path / "cancelled").read_text() == f"{job_id}\n"
    assert not queue.can_list
    assert queue.list([job_id]) is None
    assert queue.test(SCRIPT) == ""
    assert queue.ended(job_id) == JobEnd()
    assert "only Slurm can be asked" in queue.explain([job_id])[0]
    fake(submit, "echo no such queue >&2; exit 1")
    with pytest.raises(ClusterError, match=f"{submit}: no such queue"):
        queue.submit(SCRIPT, folder=tmp_path)


@pytest.mark.parametrize("line", ["--exclusive evil.sh", '--wrap="touch canary"', "--wra=x", "evil.sh"])
def test_a_line_of_a_script_gives_sbatch_nothing_else_to_run(line: str) -> None:
    assert directives(f"#!/bin/sh\n#SBATCH {line}\n#SBATCH -n 1\n") == ["-n", "1"]
