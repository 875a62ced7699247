"""What listens on this machine for a local cluster lets nobody in but the processes of the run."""

import asyncio
from pathlib import Path

import psutil
from distributed import Security, default_client, rpc

from apogee_batch.run.clusters.keys import run_keys
from apogee_batch.run.clusters.local import local_dask


def listening_ports() -> set[int]:
    """Return the ports on which this process and its children listen, and check where they listen."""
    ports = set()
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip == "127.0.0.1"
                ports.add(connection.laddr.port)
    return ports


async def answers(address: str, security: Security) -> bool:
    """Tell whether something of Dask says there who it is."""
    arguments = security.get_connection_args("client")
    async with rpc(address, connection_args=arguments, timeout=1) as asked:
        try:
            await asyncio.wait_for(asked.identity(), timeout=2)
        except (OSError, TimeoutError):
            return False
        return True


async def who_answers(ports: set[int], protocol: str, security: Security) -> set[int]:
    """Return the ports at which something of Dask says who it is; all are asked at the same time."""
    asked = {port: answers(f"{protocol}://127.0.0.1:{port}", security) for port in ports}
    return {port for port, said in zip(asked, await asyncio.gather(*asked.values()), strict=True) if said}


def test_nobody_without_the_key_is_answered(tmp_path: Path) -> None:
    before = listening_ports()
    with run_keys(tmp_path / "others") as others, local_dask(1, None) as workers:
        client = default_client()
        assert workers.executor.submit(abs, -3).result() == 3
        assert asyncio.run(answers(client.scheduler.address, client.security))
        ports = listening_ports() - before
        assert int(client.scheduler.address.rpartition(":")[2]) in ports
        assert len(ports) >= 3  # scheduler, the worker and its nanny
        assert not asyncio.run(who_answers(ports, "tcp", Security()))
        assert not asyncio.run(who_answers(ports, "tls", others.security()))
