"""Which stars teach the network, which choose it, and which test it.

The split is a hash of the star's name: it does not change when stars are added, with the order of
a table, or between two releases of the same star.
"""

import hashlib

SPLIT_FRACTIONS = {  # train and dev; the rest is test: section 2 of Olney et al. 2020
    "payne": (0.8, 0.1),
    "mstar": (0.6, 0.2),
    "yso": (0.6, 0.2),
}
_HASH_PURPOSE = b"apogee-split"  # keeps these numbers apart from other hashes of the same names


def assign_split(apogee_id: str, data_type: str) -> str:
    """Draw the split of one star from its name.

    Parameters
    ----------
    apogee_id : str
        Name of the star; all its spectra, of every release and field, share a split.
    data_type : str
        "payne" (80 % train, 10 % dev, 10 % test), "mstar" or "yso" (60, 20, 20 %).

    Returns
    -------
    str
        "train", "dev" or "test".
    """
    train, dev = SPLIT_FRACTIONS[data_type]
    position = uniform_of_name(apogee_id)
    if position < train:
        return "train"
    return "dev" if position < train + dev else "test"


def uniform_of_name(apogee_id: str) -> float:
    """Return a number in [0, 1) that looks random and depends on the name only."""
    digest = hashlib.blake2b(apogee_id.encode("utf-8"), digest_size=6, person=_HASH_PURPOSE).digest()
    return int.from_bytes(digest, "big") / 2**48  # 48 bits are exact in a float
