"""Labels of young stars from a table to a table: what `labels ysos` does."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from apogee_batch import __version__
from apogee_batch.errors import UsageError
from apogee_batch.files import sha256_of_file, write_table
from apogee_batch.labels.isochrones import read_isochrones
from apogee_batch.labels.photometric_checkpoint import WEIGHTS_FILE, TrainedNet, load_net, save_net
from apogee_batch.labels.photometry import Photometry, read_photometry
from apogee_batch.labels.synthetic_stars import OUTPUTS, SyntheticSettings, drawable_ages
from apogee_batch.labels.yso_table import yso_table
from apogee_batch.labels.yso_training import PAPER_PRECISION, train_photometric_net
from apogee_batch.labels.ysos import YsoLabels, YsoSettings, estimate_yso_labels
from apogee_batch.run.progress import ProgressView, SilentView
from apogee_batch.run.yso_settings import NetworkSettings

RADIUS_LUMINOSITY_COLUMNS = ("radius", "luminosity")
_NUMBERS = ("radius", "e_radius", "luminosity", "e_luminosity")


def make_yso_labels(
    photometry: Path,
    out: Path,
    *,
    isochrones: Sequence[Path] = (),
    network: Path | None = None,
    made: NetworkSettings | None = None,
    settings: YsoSettings | None = None,
    column_map: Mapping[str, str] | None = None,
    progress: ProgressView | None = None,
) -> list[str]:
    """Label the young stars of a table of photometry, write them, and tell what was done.

    Parameters
    ----------
    photometry : Path
        Table in any format that `read_photometry` knows.
    out : Path
        Parquet file, written whole or not at all. A new network is kept beside it, in `network_folder(out)`.
    isochrones : sequence of Path
        Tables that `read_isochrones` knows; needed unless a network is given.
    network : Path, optional
        Folder of a network that an earlier call kept: nothing is trained.
    made : NetworkSettings, optional
        How a network is made. With `network`, its bands must be those of the network.
    settings : YsoSettings, optional
        How labels are made with it.
    column_map : mapping of str to str, optional
        Our names of columns to those of the table.
    progress : ProgressView, optional

    Raises
    ------
    UsageError
        If a setting or a table is of no use; says what to change.
    IntegrityError
        If the network is damaged.
    """
    if out.suffix.lower() not in (".parquet", ".parq"):
        raise UsageError(f"{out}: the labels are written as Parquet; give a name that ends in .parquet")
    if out.exists() and photometry.exists() and out.samefile(photometry):
        raise UsageError(f"{out}: is the photometry itself; give another name with --out")
    made, settings = made or NetworkSettings(), settings or YsoSettings()
    view = progress or SilentView()
    if network is not None:
        trained = load_net(network)
        _check_network(network, trained, made, isochrones)
        table = _read(photometry, trained.settings.bands, column_map)
        _check_radius_luminosity(network, trained, table)
        folder, lines = network, [f"network {network}: nothing was trained"]
    else:
        table = _read(photometry, made.synthetic.get("bands", SyntheticSettings().bands), column_map)
        trained = _train(isochrones, made, table, view)
        folder, lines = network_folder(out), []
    before = _hash_of_network(folder)
    sha256 = save_net(folder, trained) if network is None else before
    if before not in (None, sha256):
        lines.append(f"network {folder}: replaces another that was kept there, {str(before)[:16]}")
    labels = estimate_yso_labels(trained, table, settings)
    provenance = {
        "version": __version__,
        "photometry": {"name": photometry.name, "sha256": sha256_of_file(photometry)},
        "columns": table.columns,
        "settings": asdict(settings),
        "network": {"sha256": sha256, "isochrone_files": dict(trained.files)},
    }
    write_table(out, yso_table(table, labels, provenance=provenance))
    return [*lines, *describe_net(trained, folder), *_summary(labels, out)]


def _hash_of_network(folder: Path) -> str | None:
    weights = folder / WEIGHTS_FILE
    return sha256_of_file(weights) if weights.is_file() else None


def network_folder(out: Path) -> Path:
    """Return where the network is kept that made a table of labels."""
    return out.with_suffix(".network")


def describe_net(trained: TrainedNet, folder: Path) -> list[str]:
    """Tell what a network was made of, and how well it does beside the paper's."""
    settings, held_out = trained.settings, trained.held_out
    ages = drawable_ages(trained.isochrones, settings)
    told = ", ".join(f"{10 ** (start - 6):.3g} to {10 ** (end - 6):.3g} Myr" for start, end in ages)
    asked = f"{settings.age_myr[0]:g} to {settings.age_myr[1]:g} Myr"
    masses = trained.training["ranges"]["mass"]
    lines = [
        f"isochrones {', '.join(trained.files)}: ages {told} of the {asked} that the paper drew; "
        f"masses {masses[0]:.3g} to {masses[1]:.3g} Msun",
        *trained.isochrones.notes,
        f"network {folder}: {trained.training['n_stars']} synthetic stars; "
        f"inputs {', '.join(settings.inputs)}",
        f"on {held_out['n_stars']} held-out synthetic stars, rms (1.4826 median deviation), then of those "
        "seen in every band; the paper's:",
    ]
    for name in OUTPUTS:
        of_all, of_bright = held_out["all"][name], held_out["every_band"][name]
        paper = f"   {PAPER_PRECISION[name]:g}" if name in PAPER_PRECISION else ""
        lines.append(
            f"  {name:<9}{of_all['rms']:.4f} ({of_all['robust']:.4f})   "
            f"{of_bright['rms']:.4f} ({of_bright['robust']:.4f}){paper}"
        )
    return lines


def _train(
    isochrones: Sequence[Path], made: NetworkSettings, table: Photometry, view: ProgressView
) -> TrainedNet:
    """Make a network of isochrones; it takes radius and luminosity if the table has them."""
    names = [path.name for path in isochrones]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise UsageError(
            f"{repeated[0]}: the name of {names.count(repeated[0])} isochrone files; rename one, since the "
            "network is kept with their names"
        )
    read = read_isochrones(isochrones)
    has_both = all(name in table.numbers for name in RADIUS_LUMINOSITY_COLUMNS)
    synthetic = SyntheticSettings(**{"uses_radius_luminosity": has_both, **made.synthetic})
    view.start("train", made.training.epochs, "epochs")
    trained = train_photometric_net(
        read,
        synthetic,
        files={path.name: sha256_of_file(path) for path in isochrones},
        n_stars=made.n_stars,
        seed=made.seed,
        training=made.training,
        on_epoch=lambda _epoch, loss: view.advance(1, f"loss {loss:.4f}"),
    )
    view.finish()
    return trained


def _read(path: Path, bands: Sequence[str], column_map: Mapping[str, str] | None) -> Photometry:
    """Read the photometry, with radius and luminosity if they are there."""
    required = (SyntheticSettings().required_band, "parallax", "parallax_error")
    return read_photometry(path, bands=bands, column_map=column_map, required=required, numbers=_NUMBERS)


def _check_network(
    network: Path, trained: TrainedNet, made: NetworkSettings, isochrones: Sequence[Path]
) -> None:
    """See that a network is one for what is asked."""
    bands = tuple(made.synthetic.get("bands", trained.settings.bands))
    if bands != trained.settings.bands:
        raise UsageError(
            f"{network}: the network takes the bands {','.join(trained.settings.bands)}, not "
            f"{','.join(bands)}; leave --bands out, or leave --network out to train another"
        )
    changed = [name for name, value in made.synthetic.items() if getattr(trained.settings, name) != value]
    changed += [
        name for name in ("n_stars", "training") if getattr(made, name) != getattr(NetworkSettings(), name)
    ]
    if changed:
        raise UsageError(
            f"{network}: the network is made already, and {', '.join(changed)} cannot be changed; leave "
            "these options out, or leave --network out to train another"
        )
    given = {sha256_of_file(path) for path in isochrones}
    if given and given != set(trained.files.values()):
        raise UsageError(
            f"{network}: the network was made of other isochrones ({', '.join(trained.files)}); "
            "leave --isochrones out, or leave --network out to train another"
        )


def _check_radius_luminosity(network: Path, trained: TrainedNet, table: Photometry) -> None:
    """See that the table has radius and luminosity if the network takes them."""
    lacking = [name for name in RADIUS_LUMINOSITY_COLUMNS if name not in table.numbers]
    if trained.settings.uses_radius_luminosity and lacking:
        raise UsageError(
            f"{table.source}: has no column for {' and '.join(lacking)}, which the network {network} takes; "
            f"say which is meant: --map {lacking[0]}=NAME, or leave --network out to train one without"
        )


def _summary(labels: YsoLabels, out: Path) -> list[str]:
    """Tell how many stars were labelled, and why others were not."""
    counts = Counter(labels.reason)
    n_labelled = counts.pop(None, 0)
    lines = [f"{n_labelled} of {len(labels.reason)} stars labelled: {out}"]
    lines += [f"  {count} without: {reason}" for reason, count in sorted(counts.items(), key=str)]
    return lines
