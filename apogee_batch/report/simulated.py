"""Whether the stars of a catalogue are simulated, as far as the catalogue tells."""

import pyarrow as pa

from apogee_batch.survey.populations import fields

FIELD_COLUMNS = ("location_id", "field")


class FieldsSeen:
    """Looks whether all stars lie in the fields of `apogee-batch simulate`.

    No survey has a field of the same number and the same name. Spectra that another program has simulated
    are not known as such.
    """

    def __init__(self) -> None:
        self._simulated = {(field.location_id, field.name) for field in fields()}
        self._n_stars = 0
        self._has_others = False

    def add(self, piece: pa.Table) -> None:
        """Add a piece of the catalogue with the columns `FIELD_COLUMNS`."""
        self._n_stars += len(piece)
        if self._has_others:
            return
        fields_of = piece.select(list(FIELD_COLUMNS))
        found = fields_of.group_by(list(FIELD_COLUMNS)).aggregate([]).to_pylist()
        pairs = {tuple(row[name] for name in FIELD_COLUMNS) for row in found}
        self._has_others = not pairs <= self._simulated

    @property
    def are_simulated(self) -> bool:
        """Whether there are stars, and all of them lie in such fields."""
        return self._n_stars > 0 and not self._has_others
