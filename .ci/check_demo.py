"""Check what the demo published: its rows, its bytes, and that the network has learned."""

import json
import sys
from pathlib import Path

import pandas as pd

from apogee_batch.files import read_json, sha256_of_file

MAX_RMS_OVER_SPREAD = 1 / 3


def main() -> None:
    """Leave with a message if the demo is not what the README promises."""
    run = Path(sys.argv[1]) / "run"
    manifest = read_json(run / "manifest.json")
    for file in manifest["files"]:
        if sha256_of_file(run / file["path"]) != file["sha256"]:
            sys.exit(f"{file['path']}: not the bytes that the manifest names")
    if not (run / "report" / "report.html").is_file():
        sys.exit("the run has no page")
    catalog = pd.read_parquet(run / "catalog" / "catalog.parquet")
    test = catalog[(catalog["data_set"] == "test") & catalog["teff"].notna()]
    rms = float(((test["teff"] - test["teff_label"]) ** 2).mean() ** 0.5)
    spread = float(test["teff_label"].std())
    found = {
        "stars": len(catalog),
        "test_stars": len(test),
        "teff_rms_K": round(rms, 1),
        "teff_spread_K": round(spread, 1),
    }
    sys.stdout.write(json.dumps(found) + "\n")
    if len(catalog) != manifest["stars"] or not len(test):
        sys.exit("rows are missing")
    if rms > MAX_RMS_OVER_SPREAD * spread:
        sys.exit("the network has not learned: the rms of Teff is above a third of the labels' spread")


if __name__ == "__main__":
    main()
