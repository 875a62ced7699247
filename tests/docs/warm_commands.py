"""A process that has loaded what the commands need, and forks for each command line that it is sent.

To load torch, astropy and the like anew for each of some hundred command lines would take most of the
time of these tests. `python warm_commands.py SOCKET` serves; `COMMAND` is the script that asks.
"""

import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path

LOADED = (
    "astropy.io.fits",
    "astropy.table",
    "pyarrow.parquet",
    "torch",
    "zarr",
    "apogee_batch.cli",
    "apogee_batch.run.commands",
)
COMMAND = """#!{python} -SE
import array, json, os, socket, sys

server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
descriptors = array.array("i", [0, 1, 2])
server.sendmsg([len(asked).to_bytes(8, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
server.sendall(asked)
answer = server.recv(1)
sys.exit(answer[0] if answer else 99)
"""


def serve(address: str) -> None:
    """Serve until stdin is closed."""
    load()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who serve a command
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    os.write(1, b"ready\n")
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            answer(connection)
            return
        connection.close()


def load() -> None:
    """Import what commands need, and nothing that starts threads."""
    for name in LOADED:
        importlib.import_module(name)


def answer(connection: socket.socket) -> None:
    """Run one command line in a fork of its own; end it if whoever asked is gone."""
    head, descriptors, _, _ = socket.recv_fds(connection, 8, 3)
    words, folder, environment = json.loads(read(connection, int.from_bytes(head, "big")))
    child = os.fork()
    if child == 0:
        connection.close()
        for number, descriptor in enumerate(descriptors):
            os.dup2(descriptor, number)
            os.close(descriptor)
        run(words, folder, environment)
    for descriptor in descriptors:
        os.close(descriptor)
    watched = os.pidfd_open(child)
    ready, _, _ = select.select([watched, connection], [], [])
    if watched not in ready:
        os.kill(child, signal.SIGTERM)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if watched in ready:
        connection.sendall(bytes([code if code >= 0 else 128 - code]))
    os._exit(0)


def read(connection: socket.socket, size: int) -> bytes:
    """Return as many bytes as were promised."""
    content = b""
    while len(content) < size:
        content += connection.recv(size - len(content))
    return content


def run(words: list[str], folder: str, environment: dict[str, str]) -> None:
    """Be the command."""
    from shortened import add_settings

    from apogee_batch.cli import main

    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["apogee-batch", *add_settings(words)]
    main()


def write_command(path: Path, address: Path) -> None:
    """Write the script that asks."""
    path.write_text(COMMAND.format(python=sys.executable, address=str(address)))
    path.chmod(0o755)


if __name__ == "__main__":
    serve(sys.argv[1])
