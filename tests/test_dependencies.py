"""What the package imports is what it says that it needs."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import apogee_batch

PACKAGE = Path(apogee_batch.__file__).parent
# Not declared: what is done without where it is not there, and what is a part of something declared.
UNDECLARED = {
    "specutils": "Spectrum.to_specutils tells who wants it",
    "triton": "comes with a torch that is built for CUDA",
    "tornado": "the event loop of distributed",
    "hats": "the catalogues of hats-import",
}
LOADED_BY_NAME = {"openvino"}
PROJECT = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]


def names_of(requirements: list[str]) -> set[str]:
    """Return the names of some requirements, as pip compares them."""
    return {re.match(r"[\w.-]+", each)[0].lower().replace("_", "-") for each in requirements}


def imported_packages() -> set[str]:
    """Return the top names of all that the package imports, anywhere in it."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"apogee_batch"}


def test_whatever_is_imported_is_declared() -> None:
    optional = [each for extra in PROJECT["optional-dependencies"].values() for each in extra]
    declared = names_of(PROJECT["dependencies"] + optional)
    installed = packages_distributions()
    missing = {}
    for package in imported_packages() - UNDECLARED.keys():
        distributions = {each.lower().replace("_", "-") for each in installed.get(package, [package])}
        if not distributions & declared:
            missing[package] = distributions
    assert not missing


def test_whatever_is_needed_is_imported() -> None:
    installed = packages_distributions()
    imported = {
        each.lower().replace("_", "-")
        for package in imported_packages()
        for each in installed.get(package, [])
    }
    assert names_of(PROJECT["dependencies"]) <= imported | LOADED_BY_NAME
