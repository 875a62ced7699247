"""What must be true of an sdist, of a wheel, and of the package that was installed from one."""

import importlib
import importlib.metadata
import importlib.util
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

DATA = (
    "apogee_batch/py.typed",
    "apogee_batch/schemas/catalog.json",
    "apogee_batch/schemas/store.json",
    "apogee_batch/network/recipes/robust.toml",
    "apogee_batch/network/recipes/paper.toml",
    "apogee_batch/report/templates/report.html",
)
KERNEL = "apogee_batch/inference/kernel/"
FOREIGN = ("tests/", "docs/", "shared/", "jobs/", "build/", ".ci/", "data/")
MAX_WHEEL_BYTES = 4_000_000


def demand(is_true: bool, text: str) -> None:
    """Leave with a message unless something is true."""
    if not is_true:
        sys.exit(f"error: {text}")


def sources(tree: Path) -> set[str]:
    """Return the modules, schemas and recipes of a source tree by their names in a wheel."""
    modules = {path.relative_to(tree).as_posix() for path in tree.glob("apogee_batch/**/*.py")}
    modules |= {
        path.relative_to(tree).as_posix() for path in tree.glob("apogee_batch/network/recipes/*.toml")
    }
    modules |= {f"apogee_batch/schemas/{path.name}" for path in tree.glob("schemas/*.json")}
    return modules


def check_sdist(path: str, tree: str) -> None:
    """Demand that an sdist holds all that a build needs."""
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        file.relative_to(tree).as_posix()
        for pattern in ("apogee_batch/**/*", "schemas/*.json")
        for file in Path(tree).glob(pattern)
        if file.is_file() and file.suffix in (".py", ".h", ".cpp", ".json", ".toml", ".html", ".typed")
    } | {"pyproject.toml", "setup.py", "LICENSE", "README.md", "apogee_batch/py.typed"}
    demand(needed <= names, f"{path}: lacks {sorted(needed - names)}")
    sys.stdout.write(f"{Path(path).name}: {len(names)} names\n")


def check_wheel(path: str, tree: str, *, has_kernel: bool = True) -> None:
    """Demand that a wheel holds the whole package and nothing else."""
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
    missing = (sources(Path(tree)) | set(DATA)) - names
    demand(not missing, f"{path}: lacks {sorted(missing)}")
    foreign = {name for name in names if not name.startswith("apogee_batch")}
    foreign |= {name for name in names if any(f"/{folder}" in f"/{name}" for folder in FOREIGN)}
    foreign |= {name for name in names if name.endswith((".pyc", ".md", ".cpp", ".h", ".zarr", ".fits"))}
    demand(not foreign, f"{path}: holds {sorted(foreign)}")
    built = {name for name in names if name.endswith((".so", ".pyd"))}
    expected = len(list(Path(tree).glob(f"{KERNEL}*.cpp"))) if has_kernel else 0
    demand(len(built) == expected, f"{path}: {expected} compiled modules expected, found {sorted(built)}")
    demand(all(name.startswith(KERNEL) for name in built), f"{path}: {sorted(built)} in the wrong place")
    size = Path(path).stat().st_size
    demand(size < MAX_WHEEL_BYTES, f"{path}: has {size} bytes")
    sys.stdout.write(f"{Path(path).name}: {len(names)} files, {len(built)} compiled, {size / 1e6:.2f} MB\n")


def check_import(environment: str) -> None:
    """Demand that the package of an environment is what gets imported, with all that it offers."""
    package = importlib.import_module("apogee_batch")
    place = Path(package.__file__ or "").resolve()
    demand(
        place.is_relative_to(Path(environment).resolve()), f"imported from {place}, not from {environment}"
    )
    for name in package.__all__:
        demand(getattr(package, name, None) is not None, f"apogee_batch.{name} is not there")
    found = importlib.metadata.distribution("apogee-batch")
    demand(found.version == package.__version__, f"version {found.version}, not {package.__version__}")
    origin = Path(str(found.locate_file(""))).resolve()
    demand(origin.is_relative_to(Path(environment).resolve()), f"metadata from {origin}")
    demand(bool(found.metadata.get_all("License-File")), "no licence in the metadata")
    scripts = {entry.name for entry in found.entry_points if entry.group == "console_scripts"}
    demand(scripts == {"apogee-batch"}, f"commands {sorted(scripts)}")
    sys.stdout.write(f"{package.__version__} from {place.parent}, {len(package.__all__)} public names\n")


def check_kernel(is_expected: str) -> None:
    """Demand that the compiled kernel is there and used, or that neither is so."""
    from apogee_batch.inference.choose import available_engines

    offers = {f"{offer.name} {offer.precision}": offer.reason for offer in available_engines()}
    found = importlib.util.find_spec("apogee_batch.inference.kernel._portable")
    demand((found is not None) == (is_expected == "yes"), f"kernel: {found}, {offers}")
    if found is not None:
        demand(not offers["kernel exact"], f"the kernel cannot be used: {offers['kernel exact']}")
        package = Path(importlib.import_module("apogee_batch").__file__ or "").resolve().parent
        demand(Path(found.origin or "").resolve().is_relative_to(package), f"kernel from {found.origin}")
    sys.stdout.write(f"kernel: {found.origin if found else 'none'}; {offers}\n")


def check_plain(path: str, tree: str) -> None:
    """Demand of a wheel that was built without a compiler that only the kernel is missing."""
    check_wheel(path, tree, has_kernel=False)


CHECKS: dict[str, Callable[..., None]] = {
    "sdist": check_sdist,
    "wheel": check_wheel,
    "plain": check_plain,
    "import": check_import,
    "kernel": check_kernel,
}

if __name__ == "__main__":
    CHECKS[sys.argv[1]](*sys.argv[2:])
