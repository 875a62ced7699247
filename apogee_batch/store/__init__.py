"""The Zarr store of spectra."""
