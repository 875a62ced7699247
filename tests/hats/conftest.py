"""A published catalogue and the HATS collection made of it; all of this folder needs hats-import and lsdb."""

import pytest
from hats_scenes import ARCSEC, BORDER_DEC, N_STARS, N_WITHOUT, PARTITION_ROWS, Exported, find_border
from sky_catalogs import publish, sky_catalog

from apogee_batch.run.export import open_published


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """Six hundred stars in a dozen partitions; the first is half an arcsecond beside a border."""
    pytest.importorskip("hats_import")
    from apogee_batch.run.hats import export_hats

    border = find_border()
    ra, dec = (sky_catalog(N_STARS)[name].to_pylist() for name in ("ra", "dec"))
    ra[0], dec[0] = border - 0.5 * ARCSEC, BORDER_DEC
    catalog = sky_catalog(N_STARS, n_without=N_WITHOUT, ra=ra, dec=dec)
    run = publish(catalog, tmp_path_factory.mktemp("published") / "run")
    rows, metadata = open_published(run)
    folder = run / "export" / "hats"
    made = export_hats(rows, folder, metadata=metadata, partition_rows=PARTITION_ROWS)
    assert (made.n_rows, made.n_without) == (N_STARS - N_WITHOUT, N_WITHOUT)
    return Exported(run, folder, catalog, border)
