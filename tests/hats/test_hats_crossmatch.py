"""lsdb opens the collection and joins it with a made-up Gaia, across the borders of partitions too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hats_scenes import ARCSEC, BORDER_DEC, N_STARS, N_WITHOUT, Exported

lsdb = pytest.importorskip("lsdb")

pytestmark = pytest.mark.filterwarnings("ignore:The inplace keyword in NestedFrame")  # nested-pandas' own


@pytest.fixture(autouse=True)
def _in_this_process() -> Any:
    import dask

    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="module")
def gaia(exported: Exported) -> Any:
    """A source 0.1 arcsec beside each second star; that of the first star lies beyond the border."""
    import pandas as pd

    stars = exported.catalog.slice(0, N_STARS - N_WITHOUT).to_pandas().iloc[::2]
    ra = stars["ra"].to_numpy() + 0.1 * ARCSEC
    ra[0] = exported.border_ra + 0.5 * ARCSEC
    frame = pd.DataFrame(
        {
            "source_id": np.arange(len(stars), dtype=np.int64),
            "ra": ra % 360,
            "dec": stars["dec"].to_numpy(),
            "apstar_id": stars["apstar_id"].to_numpy(),
        }
    )
    return lsdb.from_dataframe(
        frame, ra_column="ra", dec_column="dec", catalog_name="gaia", margin_threshold=10
    )


def matched_ids(matches: Any) -> dict[str, str]:
    """Return our star of each source's star."""
    frame = matches.compute()
    return dict(zip(frame["apstar_id_gaia"], frame["apstar_id_apogee"], strict=True))


def test_lsdb_opens_it_with_its_margin(exported: Exported) -> None:
    catalog = lsdb.open_catalog(exported.folder)
    assert catalog.margin is not None
    assert catalog.margin.hc_structure.catalog_info.margin_threshold == 10.0
    assert catalog.original_schema.field("teff").metadata[b"unit"] == b"K"
    frame = catalog.compute()
    assert len(frame) == N_STARS - N_WITHOUT
    assert frame["teff"].isna().sum() == exported.catalog.slice(0, len(frame))["teff"].null_count


def test_every_source_finds_its_star_across_borders_too(exported: Exported, gaia: Any) -> None:
    matches = gaia.crossmatch(
        lsdb.open_catalog(exported.folder),
        radius_arcsec=2,
        suffixes=("_gaia", "_apogee"),
        suffix_method="all_columns",
    )
    found = matched_ids(matches)
    assert len(found) == (N_STARS - N_WITHOUT + 1) // 2
    assert all(theirs == ours for theirs, ours in found.items())
    first = exported.catalog["apstar_id"][0].as_py()
    assert found[first] == first
    assert abs(exported.catalog["dec"][0].as_py() - BORDER_DEC) < ARCSEC


def test_without_the_margin_the_pair_at_the_border_is_lost(exported: Exported, gaia: Any) -> None:
    alone = lsdb.open_catalog(exported.folder / "apogee")
    with pytest.warns(RuntimeWarning, match="margin"):
        matches = gaia.crossmatch(
            alone, radius_arcsec=2, suffixes=("_gaia", "_apogee"), suffix_method="all_columns"
        )
    assert exported.catalog["apstar_id"][0].as_py() not in matched_ids(matches)


def test_a_cone_holds_the_stars_within_it(exported: Exported) -> None:
    cone = lsdb.open_catalog(exported.folder).cone_search(exported.border_ra, BORDER_DEC, 3600 * 2).compute()
    assert exported.catalog["apstar_id"][0].as_py() in set(cone["apstar_id"])
    assert len(cone) < 20


def test_it_can_be_moved(exported: Exported, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(exported.folder, tmp_path / "elsewhere")
    assert len(lsdb.open_catalog(tmp_path / "elsewhere").compute()) == N_STARS - N_WITHOUT
