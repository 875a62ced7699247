"""The TLS key of a run: whoever holds it belongs to the run, and nobody else is let in.

One self-signed certificate serves scheduler, workers and driver: each shows it and trusts no other. The key
lies in the run folder, where the jobs find it, for its owner alone; it is made with these rights, so that
there is no moment at which others could read it.
"""

import os
import secrets
import shutil
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from apogee_batch.errors import ClusterError

NAME = "apogee-batch run"
PREFIX = "run-"  # of the folder of each time
CERTIFICATE, KEY = "certificate.pem", "key.pem"
CLOCK_SKEW = timedelta(days=1)  # a node whose clock is behind must not find the certificate too young
VALID = timedelta(days=400)
FOLDER_MODE, FILE_MODE = 0o700, 0o600


@dataclass(frozen=True)
class RunKeys:
    """Where the key of a run lies.

    Attributes
    ----------
    ca_file, cert, key : Path
        What is trusted, what is shown, and the secret.
    """

    ca_file: Path
    cert: Path
    key: Path

    def worker_files(self) -> dict[str, str]:
        """Return the paths that a worker is started with."""
        return {"ca_file": str(self.ca_file), "cert": str(self.cert), "key": str(self.key)}

    def security(self) -> Any:
        """Return what a scheduler, a client or a worker of Dask takes."""
        return _security(str(self.ca_file), str(self.cert), str(self.key))

    def server_context(self) -> ssl.SSLContext:
        """Return what listens to those alone who have the key, too."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def client_context(self) -> ssl.SSLContext:
        """Return what speaks to those alone who have the key, too; hosts are not told by their names."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.ca_file)
        context.load_cert_chain(self.cert, self.key)
        return context


def security_in_memory() -> Any:
    """Return what scheduler, workers and client of Dask take that one process starts.

    The key is in no file that stays: Python's ssl reads keys from files only, so Dask writes it for that
    moment into a folder in $TMPDIR that is the user's alone.

    Raises
    ------
    ClusterError
        If the package cryptography is missing.
    """
    certificate, key = (pem.decode("ascii") for pem in _make_certificate())
    return _security(certificate, certificate, key)


def _security(ca: str, cert: str, key: str) -> Any:
    """Return one certificate for all roles, each part as a path or as its text."""
    from distributed import Security

    roles = ("client", "scheduler", "worker")
    parts = {f"tls_{role}_{part}": text for role in roles for part, text in (("cert", cert), ("key", key))}
    return Security(require_encryption=True, tls_ca_file=ca, **parts)


@contextmanager
def run_keys(folder: Path) -> Iterator[RunKeys]:
    """Make the key of a run, and remove it at the end of the block.

    Parameters
    ----------
    folder : Path
        Where it is put, in a folder of its own. What killed drivers left there is removed: the caller holds
        the lock of the run.

    Raises
    ------
    ClusterError
        If the folder is somebody else's or no folder, or cannot be written.
    """
    certificate, key = _make_certificate()
    try:
        descriptor = _open_private(folder)
    except OSError as error:
        raise ClusterError(f"{folder}: no place for the keys of the run ({error.strerror})") from error
    own = PREFIX + secrets.token_hex(8)
    try:
        try:
            _remove_leftovers(descriptor)
            _write(descriptor, own, {CERTIFICATE: certificate, KEY: key})
        except OSError as error:
            raise ClusterError(f"{folder}: the keys of the run cannot be written ({error})") from error
        cert = folder.absolute() / own / CERTIFICATE
        yield RunKeys(cert, cert, cert.with_name(KEY))
    finally:
        with suppress(OSError):  # also where the run folder is gone
            shutil.rmtree(own, dir_fd=descriptor)
        os.close(descriptor)
        with suppress(OSError):
            folder.rmdir()


def _make_certificate() -> tuple[bytes, bytes]:
    """Return a new certificate and its key, both as PEM."""
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise ClusterError(
            "the keys of a run need the package cryptography; install it beside Dask"
        ) from error
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, NAME)])
    now = datetime.now(tz=UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(serialization.Encoding.PEM), secret


def _open_private(folder: Path) -> int:
    """Make a folder for its owner alone, or close one that is there to all others; return it, opened."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        folder.mkdir(FOLDER_MODE)
        folder.chmod(FOLDER_MODE)  # a umask may have taken the owner's rights
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError as error:  # also what is said of a link
        raise ClusterError(f"{folder}: must be a folder, not a file or a link; remove it") from error
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid():
        os.close(descriptor)
        raise ClusterError(f"{folder}: belongs to another user, who could read keys in it; remove it")
    if stat.S_IMODE(found.st_mode) != FOLDER_MODE:
        os.fchmod(descriptor, FOLDER_MODE)
    return descriptor


def _remove_leftovers(folder: int) -> None:
    """Remove from the opened folder the keys of drivers that were killed."""
    for name in os.listdir(folder):
        if name.startswith(PREFIX):
            shutil.rmtree(name, dir_fd=folder)


def _write(folder: int, name: str, contents: dict[str, bytes]) -> None:
    """Write files for their owner alone into a new folder in the opened one, whatever the umask."""
    os.mkdir(name, FOLDER_MODE, dir_fd=folder)
    os.chmod(name, FOLDER_MODE, dir_fd=folder)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        for file_name, content in contents.items():
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(file_name, flags, FILE_MODE, dir_fd=inner), "wb") as file:
                os.fchmod(file.fileno(), FILE_MODE)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
    finally:
        os.close(inner)
