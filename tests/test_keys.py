"""The key of a run is for its owner alone, lasts as long as the run, and keeps all others out."""

import asyncio
import os
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apogee_batch.errors import ClusterError
from apogee_batch.run.clusters.keys import RunKeys, run_keys

HOLDER = """
import os, sys, time
from pathlib import Path
from apogee_batch.run.clusters.keys import run_keys

os.umask(0)
with run_keys(Path(sys.argv[1])) as keys:
    print(keys.key, flush=True)
    time.sleep(60)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@pytest.fixture(params=[0, 0o022, 0o777])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def test_keys_are_for_their_owner_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    with run_keys(tmp_path / "keys") as keys:
        found = sorted((tmp_path / "keys").rglob("*"))
        assert {mode(path) for path in found if path.is_file()} == {0o600}
        assert {mode(path) for path in (tmp_path / "keys", *found) if path.is_dir()} == {0o700}
        assert {*keys.worker_files().values()} == {str(path) for path in found if path.is_file()}
        assert b"PRIVATE KEY" in keys.key.read_bytes()
        assert b"PRIVATE KEY" not in keys.cert.read_bytes()


def test_key_files_are_made_with_their_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    fchmod = os.fchmod

    def note(descriptor: int, wanted: int) -> None:
        made.append(stat.S_IMODE(os.fstat(descriptor).st_mode))
        fchmod(descriptor, wanted)

    monkeypatch.setattr(os, "fchmod", note)
    old = os.umask(0)
    try:
        with run_keys(tmp_path / "keys"):
            assert made == [0o600, 0o600]
    finally:
        os.umask(old)


def test_nothing_is_left_after_success_or_failure(tmp_path: Path) -> None:
    with run_keys(tmp_path / "run" / "keys") as keys:
        assert keys.key.exists()
    assert list((tmp_path / "run").iterdir()) == []
    with pytest.raises(KeyError), run_keys(tmp_path / "run" / "keys"):
        raise KeyError
    assert list((tmp_path / "run").iterdir()) == []


def test_keys_of_a_killed_driver_are_removed_by_the_next(tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", HOLDER, str(tmp_path / "keys")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        left = Path(driver.stdout.readline().strip())
        driver.send_signal(signal.SIGKILL)
    assert mode(left) == 0o600
    (tmp_path / "keys" / "mine").touch()
    (tmp_path / "keys").chmod(0o755)
    with run_keys(tmp_path / "keys") as keys:
        assert not left.parent.exists()
        assert keys.key.parent != left.parent
        assert mode(tmp_path / "keys") == 0o700
    assert list((tmp_path / "keys").iterdir()) == [tmp_path / "keys" / "mine"]


def test_a_run_folder_that_is_gone_at_the_end_is_no_error(tmp_path: Path) -> None:
    with run_keys(tmp_path / "keys"):
        (tmp_path / "keys").rename(tmp_path / "moved")
    assert list((tmp_path / "moved").iterdir()) == []


def test_a_link_or_a_file_is_no_place_for_keys(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(ClusterError, match=rf"{name}: must be a folder"), run_keys(tmp_path / name):
            pass
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_folder_of_somebody_else_is_no_place_for_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(ClusterError, match="belongs to another user"), run_keys(tmp_path / "keys"):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ClusterError, match="no place for the keys"), run_keys(tmp_path / "file" / "keys"):
        pass


def test_a_node_whose_clock_is_behind_takes_the_certificate(tmp_path: Path) -> None:
    from cryptography.x509 import load_pem_x509_certificate

    with run_keys(tmp_path / "keys") as keys:
        certificate = load_pem_x509_certificate(keys.cert.read_bytes())
    assert certificate.not_valid_before_utc < datetime.now(tz=UTC) - timedelta(hours=1)
    assert certificate.not_valid_after_utc > datetime.now(tz=UTC) + timedelta(days=365)


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> bool:
    """Tell whether two sides let one another in, without a network."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [server.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server)]
    for _ in range(4):
        for side in tuple(sides):
            try:
                side.do_handshake()
                sides.remove(side)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                return False
    return not sides


def test_both_sides_must_have_the_key_of_the_run(tmp_path: Path) -> None:
    anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    anybody.check_hostname = False
    anybody.verify_mode = ssl.CERT_NONE
    with run_keys(tmp_path / "a") as ours, run_keys(tmp_path / "b") as others:
        assert shake_hands(ours.server_context(), ours.client_context())
        assert not shake_hands(ours.server_context(), anybody)
        assert not shake_hands(ours.server_context(), others.client_context())
        assert not shake_hands(others.server_context(), ours.client_context())
        posing = ours.client_context()  # trusts us but shows another certificate
        posing.load_cert_chain(others.cert, others.key)
        assert not shake_hands(ours.server_context(), posing)


def test_a_context_asks_for_a_certificate_and_for_a_recent_protocol(tmp_path: Path) -> None:
    with run_keys(tmp_path / "keys") as keys:
        for context in (keys.server_context(), keys.client_context()):
            assert context.verify_mode is ssl.CERT_REQUIRED
            assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


async def _who_is_let_in(ours: RunKeys, others: RunKeys) -> dict[str, bool]:
    """Start a scheduler with our keys and tell which clients it answers."""
    from distributed import Scheduler, rpc
    from distributed.security import Security

    let_in = {}
    async with Scheduler(
        protocol="tls", host="127.0.0.1", port=0, dashboard=False, security=ours.security()
    ) as scheduler:
        address = scheduler.address
        assert address.startswith("tls://127.0.0.1:")
        plain = address.replace("tls://", "tcp://")
        clients = {
            "ours": (address, ours.security()),
            "others": (address, others.security()),
            "plain": (plain, Security()),
        }
        for name, (where, security) in clients.items():
            async with rpc(
                where, connection_args=security.get_connection_args("client"), timeout=0.5
            ) as asked:
                try:
                    await asyncio.wait_for(asked.identity(), timeout=1)
                    let_in[name] = True
                except (OSError, TimeoutError):
                    let_in[name] = False
    return let_in


def test_a_scheduler_answers_nobody_without_the_key(tmp_path: Path) -> None:
    start = time.monotonic()
    with run_keys(tmp_path / "a") as ours, run_keys(tmp_path / "b") as others:
        assert asyncio.run(_who_is_let_in(ours, others)) == {"ours": True, "others": False, "plain": False}
    assert time.monotonic() - start < 10
