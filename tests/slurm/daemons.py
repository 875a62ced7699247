"""Start and stop a Slurm of two nodes on this machine, for tests; nothing but the standard library.

Each host of the rig (the controller and the nodes) is a process namespace: when its first process is killed
the kernel kills all that ever ran in it, which is how a node crashes, and why nothing outlives the rig.
What is started is noted by pid and time of start, and only that is ever sent a signal.

By hand: `slurm-up [ROOT]`, `slurm-node start|stop|kill|crash NODE [ROOT]`, `slurm-down [ROOT]`.
"""

import argparse
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from pids import Pid, wait_for
from slurm_conf import NODES, write_conf

HERE = Path(__file__).resolve().parent
COMMANDS = ("slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "munged", "unshare", "setsid")
START_S = 30.0  # of a busy machine
STOP_S = 10.0
NAMESPACES = ("unshare", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc")
# The shell notes its pid and becomes the daemon, which is then nobody's child: whoever started it may end.
SPAWN = 'echo $$ > "$1.new" && mv "$1.new" "$1" && shift && exec "$@"'
LONGEST_ROOT = 60  # the path of a Unix socket has 107 characters, and Slurm adds its own to the root


class RigError(RuntimeError):
    """The rig does not do what it should."""


def why_not() -> str:
    """Return why no rig can be started here; empty if one can."""
    missing = [name for name in COMMANDS if shutil.which(name) is None]
    if missing:
        return f"Slurm is not installed (no {', '.join(missing)}); as root on Debian: .ci/install_slurm"
    if os.geteuid() != 0:
        return "only root can start the daemons of Slurm for each other's jobs"
    told = subprocess.run([*NAMESPACES, "true"], check=False, capture_output=True, text=True)
    return f"no namespaces here: {told.stderr.strip()}" if told.returncode else ""


class Daemons:
    """The daemons of one rig; each method may be called again, and again by another process.

    Attributes
    ----------
    root : Path
        Folder of all its files: `conf`, `log`, `run` and what the daemons keep.
    """

    def __init__(self, root: Path) -> None:
        if len(str(root)) > LONGEST_ROOT:
            raise RigError(f"{root}: the path of a rig has at most {LONGEST_ROOT} characters (Unix sockets)")
        self.root = root

    @property
    def conf(self) -> Path:
        """The file for SLURM_CONF."""
        return self.root / "conf" / "slurm.conf"

    def environment(self) -> dict[str, str]:
        """Return this process's environment for clients of this Slurm and of no other."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        return kept | {"SLURM_CONF": str(self.conf)}

    def up(self) -> None:
        """Start what does not run, and wait until all nodes take jobs."""
        if not self.conf.exists():
            write_conf(self.root)
        self._start_munged()
        self.start_host("ctl")
        for node in NODES:
            self.start_host(node)
        if not wait_for(lambda: set(self._states().values()) <= {"idle", "mixed", "allocated"}, START_S, 0.1):
            raise RigError(f"nodes do not become idle: {self._states()}\n{self.last_words()}")

    def down(self) -> None:
        """End all that this rig started: first the nodes with what runs on them."""
        for name in (*NODES, "ctl", "munged"):
            self.crash(name)

    def start_host(self, name: str) -> None:
        """Start a host, or its daemon where the host lives and the daemon does not."""
        if self.daemon(name) is not None:
            return
        init = self.init(name)
        if init is not None:
            init.send(signal.SIGUSR1)
        else:
            daemon = ["slurmctld"] if name == "ctl" else ["slurmd", "-N", name]
            (self.root / "spool" / name).mkdir(exist_ok=True)
            hosts = self.root / "hosts" / "hosts"
            command = [*daemon, "-f", str(self.conf), "-D"]
            self._spawn(name, [*NAMESPACES, str(HERE / "host-init"), name, str(hosts), *command])
        if not wait_for(lambda: self.daemon(name), START_S):
            raise RigError(f"the daemon of {name} does not start\n{self.last_words()}")

    def init(self, name: str) -> Pid | None:
        """Return the first process of a host that lives."""
        outer = Pid.read(self._pid_file(name))
        return next(iter(outer.children("host-init")), None) if outer else None

    def daemon(self, name: str) -> Pid | None:
        """Return the slurmd or slurmctld of a host."""
        init = self.init(name)
        return next(iter(init.children("slurmctld" if name == "ctl" else "slurmd")), None) if init else None

    def kill_daemon(self, name: str, signal_: signal.Signals = signal.SIGKILL) -> None:
        """End the daemon of a host; its jobs live on."""
        daemon = self.daemon(name)
        if daemon is not None:
            daemon.send(signal_)
            if not daemon.wait(STOP_S):
                raise RigError(f"the daemon of {name} does not end by {signal_.name}")

    def crash(self, name: str) -> None:
        """End a host with everything that runs on it, at once."""
        outer = Pid.read(self._pid_file(name))
        if outer is not None:
            # The death of a first process is complete when that of its parent is: nothing is left then.
            (self.init(name) or outer).send(signal.SIGKILL)
            if not outer.wait(STOP_S):
                outer.send(signal.SIGKILL)
                outer.wait(STOP_S)
        self._pid_file(name).unlink(missing_ok=True)

    def last_words(self) -> str:
        """Return the ends of all logs, for messages."""
        found = []
        for path in sorted((self.root / "log").iterdir()):
            lines = path.read_text(errors="replace").splitlines()[-15:]
            found += [f"--- {path}", *lines]
        return "\n".join(found)

    def _start_munged(self) -> None:
        if Pid.read(self._pid_file("munged")) is not None:
            return
        key, munge_socket = self.root / "munge" / "munge.key", self.root / "run" / "munge.socket"
        if not key.exists():
            key.touch(mode=0o600)
            key.write_bytes(secrets.token_bytes(1024))
        munge_socket.unlink(missing_ok=True)
        options = {
            "key-file": key,
            "socket": munge_socket,
            "pid-file": self.root / "run" / "munged.own",
            "log-file": self.root / "log" / "munged.log",
            "seed-file": self.root / "munge" / "seed",
        }
        # By force: it does not like that a folder of temporary files is closed to other users.
        given = [f"--{key}={value}" for key, value in options.items()]
        self._spawn("munged", ["munged", "--foreground", "--force", *given])
        if not wait_for(munge_socket.exists, START_S):
            raise RigError(f"munged does not start\n{self.last_words()}")

    def _spawn(self, name: str, command: list[str]) -> None:
        noted = self.root / "run" / f"{name}.number"
        noted.unlink(missing_ok=True)
        log = self.root / "log" / f"{name}.out"
        with log.open("ab") as output:
            subprocess.run(
                ["setsid", "--fork", "sh", "-c", SPAWN, "sh", str(noted), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self.environment(),
                cwd=self.root,
                check=True,
            )
        if not wait_for(noted.exists, START_S):
            raise RigError(f"{name} does not start; see {log}")
        pid = Pid.of(int(noted.read_text()))
        if pid is None:
            raise RigError(f"{name} ended at once: {log.read_text(errors='replace')[-2000:]}")
        pid.write(self._pid_file(name))

    def _pid_file(self, name: str) -> Path:
        return self.root / "run" / f"{name}.pid"

    def _states(self) -> dict[str, str]:
        """Return the state of each node; `unknown` while the controller does not answer."""
        told = subprocess.run(
            ["sinfo", "-h", "-N", "-o", "%N %T"],
            check=False,
            capture_output=True,
            text=True,
            env=self.environment(),
        )
        states = dict(line.split()[:2] for line in told.stdout.splitlines())
        return {node: states.get(node, "unknown") for node in NODES}


def main() -> None:
    """Do what `slurm-up`, `slurm-down` and `slurm-node` are for."""
    parser = argparse.ArgumentParser(description="A Slurm of two nodes for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down", "node", "leash"):
        command = commands.add_parser(name)
        if name == "node":
            command.add_argument("action", choices=("start", "stop", "kill", "crash"))
            command.add_argument("node", choices=NODES)
        command.add_argument("root", nargs="?", type=Path, default=Path(tempfile.gettempdir()) / "slurm-rig")
    given = parser.parse_args()
    daemons = Daemons(given.root.absolute())
    if given.command == "up":
        if reason := why_not():
            sys.exit(reason)
        daemons.up()
        print(f"export SLURM_CONF={daemons.conf}")  # noqa: T201
    elif given.command == "down":
        daemons.down()
    elif given.command == "leash":
        hold_leash(daemons)
    elif given.action == "start":
        daemons.start_host(given.node)
    elif given.action == "crash":
        daemons.crash(given.node)
    else:
        daemons.kill_daemon(given.node, signal.SIGTERM if given.action == "stop" else signal.SIGKILL)


def hold_leash(daemons: Daemons) -> None:
    """End the rig when whoever holds the other end of standard input is gone, however it went."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.stdin.buffer.read()
    daemons.down()


if __name__ == "__main__":
    try:
        main()
    except RigError as error:
        sys.exit(str(error))
