"""What the test Slurm is configured with: two small nodes on the loopback, and nothing but the daemons.

No systemd, no cgroups, no accounting, so that it runs in a plain container.
"""

import random
import re
import socket
import subprocess
from pathlib import Path

NODES = ("n1", "n2")
CPUS = 4
MEMORY_MB = 4000
GPUS = 2
PARTITION = "debug"
PORTS = range(20_000, 30_000)  # below those that the kernel gives to clients, which could take them first
FAIL_PROLOG = "fail-prolog"  # a file in the folder `run`: the Prolog fails on the nodes named in it

SLURM_CONF = """\
ClusterName=rig
SlurmctldHost=ctl(127.0.0.1)
SlurmctldPort={controller_port}
# The hosts of the rig have their own names, all of which mean 127.0.0.1: nothing listens beyond it.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# A requeued job waits as long as a credential lives, 120 s by default.
AuthInfo=socket={root}/run/munge.socket,cred_expire=10
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd-%n.pid
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
# The nodes may be bigger than the machine: believe this file.
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
SelectType=select/cons_tres
# LLN: the next job goes to the emptier node, so that workers are on both.
SelectTypeParameters=CR_Core_Memory,CR_LLN
GresTypes=gpu
DefMemPerCPU=256
# What fails shows after seconds, not minutes.
SlurmdTimeout=6
SlurmctldTimeout=30
MessageTimeout=5
BatchStartTimeout=10
KillWait=2
OverTimeLimit=0
# Ended jobs are told of for ten minutes: there is no accounting to ask.
MinJobAge=600
InactiveLimit=0
ReturnToService=2
JobRequeue=1
Prolog={root}/conf/prolog
PartitionName={partition} Nodes={nodes} Default=YES MaxTime=INFINITE DefaultTime=10 State=UP OverSubscribe=NO
"""
NODE = (
    "NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} Boards=1"
    " SocketsPerBoard=1 CoresPerSocket={cpus} ThreadsPerCore=1 RealMemory={memory} Gres=gpu:{gpus}"
    " State=UNKNOWN\n"
)
PROLOG = """\
#!/bin/sh
# slurmd runs this before each job; tests let it fail by a file.
! grep -qsw "$SLURMD_NODENAME" '{flag}'
"""


def write_conf(root: Path) -> None:
    """Write all files that the daemons read; ports that are free are chosen now."""
    for name in ("conf", "dev", "hosts", "log", "munge", "run", "spool", "state"):
        (root / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    ports = _free_ports(1 + len(NODES))
    nodes = "".join(
        NODE.format(name=name, port=port, cpus=CPUS, memory=MEMORY_MB, gpus=GPUS)
        for name, port in zip(NODES, ports[1:], strict=True)
    )
    text = SLURM_CONF.format(root=root, controller_port=ports[0], partition=PARTITION, nodes=",".join(NODES))
    _write_gpus(root)
    _write_hosts(root)
    prolog = root / "conf" / "prolog"
    prolog.write_text(PROLOG.format(flag=root / "run" / FAIL_PROLOG))
    prolog.chmod(0o755)
    (root / "conf" / "cgroup.conf").write_text(f"{_without_cgroups()}\n")
    (root / "conf" / "slurm.conf").write_text(nodes + text)  # last: it says that all are there


def _write_gpus(root: Path) -> None:
    """Declare GPUs: Slurm wants a device file for each, and takes its number from the digits of the name."""
    for number in range(GPUS):
        device = root / "dev" / f"nvidia{number}"
        device.unlink(missing_ok=True)
        device.symlink_to("/dev/null")
    (root / "conf" / "gres.conf").write_text(
        f"NodeName={','.join(NODES)} Name=gpu File={root}/dev/nvidia[0-{GPUS - 1}]\n"
    )


def _write_hosts(root: Path) -> None:
    """Write the /etc/hosts of each host: its name, and those of the others, mean the loopback."""
    names = " ".join(("localhost", "ctl", *NODES))
    (root / "hosts" / "hosts").write_text(f"127.0.0.1 {names}\n::1 ip6-localhost\n")


def _without_cgroups() -> str:
    told = subprocess.run(["slurmd", "-V"], capture_output=True, text=True, check=True).stdout
    major, minor = (int(number) for number in re.findall(r"\d+", told)[:2])
    return "CgroupPlugin=disabled" if (major, minor) >= (23, 11) else "CgroupAutomount=no"


def _free_ports(n_ports: int) -> list[int]:
    """Return ports that nobody listens at; each rig takes others, as they are drawn."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n_ports:
            return found
    raise RuntimeError(f"no free ports between {PORTS.start} and {PORTS.stop}")
