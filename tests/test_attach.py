"""Labels on the spectra of a store: the right spectra, one split a star, nothing lost."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from store_rows import star_table

from apogee_batch.labels.attach import LABELS_SCHEMA, UNMATCHED_SCHEMA, AttachedLabels, attach_labels
from apogee_batch.labels.rows import LabelTable, UnusedLabel, UnusedReason, first_row_of_each_star
from apogee_batch.labels.splits import assign_split
from apogee_batch.schema import DATA_SETS, DATA_TYPES

TEFF = {"payne": 5000.0, "mstar": 3500.0, "yso": 4000.0}


def label_table(
    data_type: str,
    apogee_id: list[str],
    *,
    apstar_id: list[str] | None = None,
    data_set: list[str] | None = None,
    unused: tuple[UnusedLabel, ...] = (),
) -> LabelTable:
    """Return a table whose Teff tells its type and whose log g tells its row."""
    n_stars = len(apogee_id)
    labels = np.stack([np.arange(n_stars), np.full(n_stars, TEFF[data_type]), np.zeros(n_stars)], axis=1)
    blank = ("",) * n_stars
    apstar = blank if apstar_id is None else tuple(apstar_id)
    splits = blank if data_set is None else tuple(data_set)
    n_rows = n_stars + len(unused)
    table = LabelTable("t", data_type, tuple(apogee_id), apstar, labels, splits, n_rows, unused=unused)
    return first_row_of_each_star(table)


def named_stars(names: list[tuple[str, str]]) -> pa.Table:
    """Return a store of these (apstar_id, apogee_id)."""
    return star_table(len(names), apstar_id=[a for a, _ in names], apogee_id=[b for _, b in names])


def by_spectrum(attached: AttachedLabels, column: str) -> dict[str, object]:
    return dict(zip(attached.table["apstar_id"].to_pylist(), attached.table[column].to_pylist(), strict=True))


def test_a_star_of_two_fields_gets_its_label_twice_and_one_split() -> None:
    stars = named_stars([("f.A", "A"), ("g.A", "A"), ("f.B", "B")])
    attached = attach_labels(stars, [label_table("payne", ["A", "C"])])
    assert by_spectrum(attached, "teff") == {"f.A": 5000.0, "g.A": 5000.0}
    assert set(by_spectrum(attached, "data_set").values()) == {assign_split("A", "payne")}
    assert attached.table["row"].to_pylist() == [0, 1]
    assert attached.unmatched.to_pylist() == [
        {"data_type": "payne", "apogee_id": "C", "apstar_id": "", "reason": "NOT_IN_STORE"}
    ]
    counts = attached.counts["payne"]
    assert (counts["rows"], counts["used"], counts["NOT_IN_STORE"], counts["spectra"]) == (2, 1, 1, 2)


def test_yso_outranks_mstar_outranks_payne_in_any_order_of_tables() -> None:
    stars = named_stars([("f.A", "A"), ("f.B", "B"), ("f.C", "C")])
    tables = [
        label_table("mstar", ["A", "B"]),
        label_table("yso", ["A"]),
        label_table("payne", ["A", "B", "C"]),
    ]
    for given_tables in (tables, tables[::-1]):
        attached = attach_labels(stars, given_tables)
        assert by_spectrum(attached, "data_type") == {"f.A": "yso", "f.B": "mstar", "f.C": "payne"}
        assert attached.counts["payne"]["outranked"] == 2
        assert attached.counts["mstar"]["outranked"] == 1
        assert attached.unmatched.num_rows == 0


def test_the_first_of_two_tables_of_a_type_has_precedence() -> None:
    first = label_table("payne", ["B", "A"])
    attached = attach_labels(named_stars([("f.A", "A")]), [first, label_table("payne", ["A"])])
    assert attached.table["logg"].to_pylist() == [1.0]
    assert attached.counts["payne"]["outranked"] == 1


def test_an_apstar_id_names_one_spectrum_and_all_its_visits() -> None:
    stars = named_stars([("f.A", "A"), ("g.A.visit01", "A"), ("g.A.visit02", "A")])
    attached = attach_labels(stars, [label_table("payne", ["A"], apstar_id=["g.A"])])
    assert attached.table["apstar_id"].to_pylist() == ["g.A.visit01", "g.A.visit02"]
    one_visit = attach_labels(stars, [label_table("payne", ["A"], apstar_id=["g.A.visit02"])])
    assert one_visit.table["apstar_id"].to_pylist() == ["g.A.visit02"]


def test_a_row_without_apstar_id_is_matched_by_the_star() -> None:
    stars = named_stars([("f.A", "A"), ("f.B", "B")])
    attached = attach_labels(stars, [label_table("payne", ["A", "B"], apstar_id=["f.A", ""])])
    assert attached.table["apstar_id"].to_pylist() == ["f.A", "f.B"]


def test_apogee_id_stands_in_where_the_store_knows_no_apstar_id_of_the_table() -> None:
    stars = named_stars([("made-up.A", "A"), ("made-up.B", "B")])
    table = label_table("payne", ["A", "A", ""], apstar_id=["f.A", "g.A", "h.B"])
    attached = attach_labels(stars, [table])
    assert by_spectrum(attached, "logg") == {"made-up.A": 0.0}
    assert [(r["apstar_id"], r["reason"]) for r in attached.unmatched.to_pylist()] == [
        ("", "CONFLICT"),
        ("h.B", "NOT_IN_STORE"),
    ]


def test_the_split_of_the_table_wins_for_all_spectra_of_the_star() -> None:
    stars = named_stars([("f.A", "A"), ("g.A", "A")])
    for split in DATA_SETS:
        attached = attach_labels(stars, [label_table("payne", ["A"], data_set=[split])])
        assert attached.table["data_set"].to_pylist() == [split] * 2
        assert attached.counts["payne"][split] == 2


def test_a_star_with_labels_of_two_types_is_in_one_split() -> None:
    # payne and yso cut the hash at different places: between 0.6 and 0.8 a star would be train and dev
    name = next(n for i in range(999) if assign_split(n := f"2M{i}", "payne") != assign_split(n, "yso"))
    stars = named_stars([("f", name), ("g", name)])
    tables = [label_table("payne", [name]), label_table("yso", [name], apstar_id=["f"])]
    attached = attach_labels(stars, tables)
    assert by_spectrum(attached, "data_type") == {"f": "yso", "g": "payne"}
    assert attached.table["data_set"].to_pylist() == [assign_split(name, "yso")] * 2


def test_rows_are_those_of_the_store() -> None:
    stars = named_stars([("f.A", "A"), ("f.B", "B"), ("f.C", "C")])
    stars = stars.set_column(0, stars.schema.field("row"), pa.array([70, 5, 12]))
    attached = attach_labels(stars, [label_table("payne", ["A", "B", "C"])])
    assert attached.table["row"].to_pylist() == [5, 12, 70]
    assert attached.table["apogee_id"].to_pylist() == ["B", "C", "A"]


def test_nothing_to_attach_is_an_empty_table() -> None:
    attached = attach_labels(star_table(0), [label_table("payne", ["A"])])
    assert attached.table.schema.equals(LABELS_SCHEMA)
    assert attached.table.num_rows == 0
    assert attach_labels(star_table(2), []).unmatched.schema.equals(UNMATCHED_SCHEMA)


names = st.sampled_from([f"2M{i}" for i in range(12)])
tables = st.builds(
    lambda data_type, rows, unused: label_table(
        data_type,
        [name for name, _ in rows],
        apstar_id=[f"f.{name}" if exact else "" for name, exact in rows],
        unused=tuple(UnusedLabel(name, "", UnusedReason.MISSING_LABEL) for name in unused),
    ),
    st.sampled_from(DATA_TYPES),
    st.lists(st.tuples(names, st.booleans()), max_size=8),
    st.lists(names, max_size=3),
)
spectra = st.lists(st.tuples(st.sampled_from("fgh"), names), unique=True, max_size=12)


def store_of(chosen: list[tuple[str, str]]) -> pa.Table:
    return named_stars([(f"{field}.{name}", name) for field, name in chosen])


@given(spectra, st.lists(tables, max_size=4))
@settings(max_examples=60, deadline=None)
def test_counts_add_up_and_every_row_is_used_outranked_or_told(
    chosen: list[tuple[str, str]], given_tables: list[LabelTable]
) -> None:
    attached = attach_labels(store_of(chosen), given_tables)
    n_rows = sum(table.n_rows for table in given_tables)
    told = ("repeated", *UnusedReason, "outranked", "used")
    assert sum(counts[key] for counts in attached.counts.values() for key in told) == n_rows
    assert min((min(counts.values()) for counts in attached.counts.values()), default=0) >= 0
    assert sum(counts["spectra"] for counts in attached.counts.values()) == attached.table.num_rows
    assert len(set(attached.table["row"].to_pylist())) == attached.table.num_rows
    n_unused = sum(counts[r] for counts in attached.counts.values() for r in UnusedReason)
    assert n_unused == attached.unmatched.num_rows
    split_of = {}
    for row in attached.table.to_pylist():
        assert split_of.setdefault(row["apogee_id"], row["data_set"]) == row["data_set"]


@given(spectra, spectra, st.lists(names, unique=True), st.sampled_from(DATA_TYPES), st.randoms())
@settings(max_examples=60, deadline=None)
def test_splits_do_not_change_when_stars_are_added_or_reordered(
    before: list[tuple[str, str]],
    added: list[tuple[str, str]],
    labelled: list[str],
    data_type: str,
    random: object,
) -> None:
    table = label_table(data_type, labelled)
    first = by_spectrum(attach_labels(store_of(before), [table]), "data_set")
    larger = list(dict.fromkeys([*added, *before]))
    random.shuffle(larger)  # type: ignore[attr-defined]
    random.shuffle(labelled)  # type: ignore[attr-defined]
    second = by_spectrum(attach_labels(store_of(larger), [label_table(data_type, labelled)]), "data_set")
    assert {name: second[name] for name in first} == first
