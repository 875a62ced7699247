"""What a job of the cluster would look like, without a cluster."""

from pathlib import Path

from apogee_batch.errors import UsageError
from apogee_batch.run.config import QUEUE_KINDS, ClusterSettings
from apogee_batch.run.job_settings import Role

RUN = Path("/RUN")  # stands for the folder of a run, which is not known


def show_job(settings: ClusterSettings, role: Role) -> list[str]:
    """Return the lines of a job's script.

    Parameters
    ----------
    settings : ClusterSettings
        Of a cluster with a queue.
    role : {"cpu", "gpu"}
        Whose job: of ingest, or of training and inference.

    Raises
    ------
    UsageError
        If there is no queue, or no script can be made of the settings.
    """
    if settings.kind not in QUEUE_KINDS:
        kinds = ", ".join(QUEUE_KINDS)
        raise UsageError(
            f"--cluster {settings.kind} has no jobs; choose one of {kinds}, or a --config with one"
        )
    from apogee_batch.run.clusters.jobs import job_script
    from apogee_batch.run.clusters.queue_cluster import worker_job

    folder = RUN / "keys"
    certificate = f"{folder}/certificate.pem"
    files = {"ca_file": certificate, "cert": certificate, "key": f"{folder}/key.pem"}
    scheme = "tls" if settings.tls else "tcp"
    tls = files if settings.tls else None
    job = worker_job(settings, role, scheduler=f"{scheme}://driver:8786", logs=RUN / "logs", tls=tls)
    return [*job_script(job, "w0").splitlines(), *_not_used(settings)]


def _not_used(settings: ClusterSettings) -> list[str]:
    """Say what of the site's settings has no place in the script."""
    if settings.site is None:
        return []
    from apogee_batch.run.clusters.site import read_site

    return ["", *(f"# {line}" for line in read_site(settings.site, kind=settings.kind).not_used)]
