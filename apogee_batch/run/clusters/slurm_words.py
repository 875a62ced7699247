"""What Slurm says, what it means for a run, and what to do about it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

INNOCENT_STATES = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT"}
)
"""Ends of a job that are not the doing of what ran in it."""

LIVE_STATES = frozenset(
    {
        "COMPLETING",
        "CONFIGURING",
        "PENDING",
        "REQUEUED",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "RESIZING",
        "RESV_DEL_HOLD",
        "RUNNING",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
    }
)
"""States of a job that has not ended."""

_PASSING = re.compile(
    r"unable to contact slurm controller|socket timed out|resource temporarily unavailable|zero bytes"
    r"|connection (refused|timed out|reset)|temporarily unable to accept job|controller is in standby"
    r"|slurmctld is rate limit|transport endpoint|unexpected message received",
    re.IGNORECASE,
)

_REMEDIES = (  # what is said about a refused job; the first that fits
    (r"account.*partition combination", "check `account` and `partition` (sacctmgr show associations)"),
    (r"invalid account", "check `account` (sacctmgr show associations user=$USER)"),
    (r"partition", "check `partition` (sinfo -s lists those there are)"),
    (r"submit ?job|submitjoblimit|job submit limit", "too many jobs of yours: lower `workers`"),
    (r"invalid qos", "check `qos` (sacctmgr show qos)"),
    (r"job violates accounting/qos policy|qos", "`walltime`, `memory`, `cores` or `workers` exceed a limit"),
    (r"invalid --time", "check `walltime`"),
    (r"time ?limit", "lower `walltime` (sinfo -o '%P %l' shows the limits)"),
    (r"memory", "lower `memory` (sinfo -o '%P %m' shows MB a node)"),
    (r"generic resource|gres", "check `gres` (sinfo -o '%P %G' shows what the nodes have)"),
    (r"feature|constraint", "check `constraint` (sinfo -o '%P %f' shows the features)"),
    (r"reservation", "check `reservation` (scontrol show reservation)"),
    (r"node configuration is not available", "no node has that: `cores`, `memory`, `gres`, `constraint`"),
    (r"node name|nodelist", "check `nodelist` and `exclude` (sinfo -N)"),
    (r"batch script", "the first line of the script must name its interpreter: check `shebang`"),
    (r"unrecognized option|invalid option|invalid argument|invalid --", "check `directives`"),
    (r"permission denied|munge|authentication", "this host may not submit jobs; try a login node"),
    (_PASSING.pattern, "is the Slurm controller up (scontrol ping)?"),
)

_REASONS = (  # why a job waits; the first that fits
    (r"PartitionConfig|PartitionTimeLimit|PartitionNodeLimit", "it asks for more than the partition gives"),
    (r"BadConstraints", "no node fits `constraint`, `gres`, `memory` and `cores`"),
    (r"ReqNodeNotAvail|NodeDown|Nodes_required_for_job", "nodes are down, drained or reserved (sinfo -R)"),
    (r"PartitionDown|PartitionInactive", "the partition is closed (sinfo -s)"),
    (r"InvalidAccount|AccountNotAllowed", "check `account`"),
    (r"InvalidQOS|QOSNotAllowed", "check `qos`"),
    (r"[Hh]eld", "somebody or a failed start holds it (scontrol release)"),
    (r"Reservation", "its reservation has not begun or is over"),
    (r"Assoc|QOS", "a limit of your account or QOS is reached"),
)


@dataclass(frozen=True)
class JobEnd:
    """How a job ended.

    Attributes
    ----------
    state : str
        Slurm's word; "" where nobody knows.
    exit_code : int or None
        What the script left; None where it left nothing.
    signal : int
        What killed it; 0: nothing.
    node : str
        Where it ran; "" where it never did.
    reason : str
        Slurm's word for why; may be "".
    """

    state: str = ""
    exit_code: int | None = None
    signal: int = 0
    node: str = ""
    reason: str = ""

    @property
    def is_known(self) -> bool:
        """Tell whether it is known that, and how, it ended."""
        return bool(self.state) and self.state not in LIVE_STATES

    @property
    def is_innocent(self) -> bool:
        """Tell whether the end was not the doing of what ran in the job."""
        return is_innocent(self.state)

    @property
    def text(self) -> str:
        """Say it, for example "FAILED with exit code 127 on n2"; "" where nothing is known."""
        words = [self.state]
        if self.state and self.exit_code:
            words.append(f"with exit code {self.exit_code}")
        elif self.state and self.signal and not self.is_innocent:
            words.append(f"by signal {self.signal}")
        if self.node:
            words.append(f"on {self.node}")
        if self.reason and not self.is_innocent:
            words.append(f"({self.reason})")
        return " ".join(words) if self.state else ""

    def __str__(self) -> str:
        return self.text


def is_innocent(end: str | JobEnd) -> bool:
    """Tell whether an end, or a state or text of one, is none that the job is to blame for."""
    first = re.match(r"[A-Z_]+", str(end))
    return first is not None and first.group() in INNOCENT_STATES


def read_job_end(line: str) -> JobEnd:
    """Read how a job ended from a line of `scontrol show job -o`."""
    state = _value(line, "JobState")
    code, _, signal = _value(line, "ExitCode").partition(":")
    reason = _value(line, "Reason")
    return JobEnd(
        state=state,
        exit_code=int(code) if code.isdecimal() and not _is_signal(signal) else None,
        signal=int(signal) if _is_signal(signal) else 0,
        node=_value(line, "NodeList") or _value(line, "BatchHost"),
        reason="" if reason in ("None", "NonZeroExitCode") else reason,
    )


def _is_signal(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _value(line: str, key: str) -> str:
    """Return the value of `key=` in a line; "" also for Slurm's words for nothing."""
    found = re.search(rf"(?:^|\s){key}=(\S*)", line)
    value = found.group(1) if found else ""
    return "" if value in ("(null)", "N/A", "Unknown") else value


def is_passing(text: str) -> bool:
    """Tell whether a refusal is likely to pass: the controller restarts, or is too busy."""
    return _PASSING.search(text) is not None


def is_of_gone_jobs(text: str) -> bool:
    """Tell whether scancel complains of nothing but jobs that are gone, of which newer versions do."""
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(
        re.search(r"already completing or completed|invalid job id", x, re.I) for x in lines
    )


def remedy_of_refusal(text: str) -> str:
    """Say what a user can do about a refused job; "" where nothing is known of what `text` says."""
    return _first(_REMEDIES, text)


def remedy_of_waiting(reason: str) -> str:
    """Say what the reason of a waiting job means where it is more than waiting for one's turn; else ""."""
    return _first(_REASONS, reason, re.NOFLAG)


def _first(table: tuple[tuple[str, str], ...], text: str, flags: re.RegexFlag = re.IGNORECASE) -> str:
    return next((remedy for pattern, remedy in table if re.search(pattern, text, flags)), "")


def clean_environment(surrounding: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for Slurm's commands that does not depend on where they are called.

    The SLURM_* variables of a surrounding job would be read as options of the new one, those of SQUEUE_*
    and SCANCEL_* hide jobs, and a few of SBATCH_* contradict what a run needs: a script of its own name and
    log, sent off at once, never started again by Slurm.
    """
    kept = {
        key: value
        for key, value in surrounding.items()
        if key in _KEPT or not (key.startswith(_DROPPED) or key in _CONTRADICTING)
    }
    if "SLURM_JOB_ID" in surrounding:  # its GPUs are not those of the new one
        for key in _GPUS_OF_A_JOB:
            kept.pop(key, None)
    return kept


_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")
_DROPPED = ("SLURM_", "SLURMD_", "SQUEUE_", "SCANCEL_", "SCONTROL_", "SRUN_", "PMI_", "PMIX_")
_CONTRADICTING = (
    "SBATCH_ARRAY_INX",
    "SBATCH_ERROR",
    "SBATCH_INPUT",
    "SBATCH_JOB_NAME",
    "SBATCH_OUTPUT",
    "SBATCH_REQUEUE",
    "SBATCH_WAIT",
)
_GPUS_OF_A_JOB = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK")
