"""The read plan and the decoders: right on every value, missing where nothing can be read, never an exception."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import feast_values
from protos.feast_layout import EntityPlan, PlanError, ReadPlan, ViewPlan, check_collisions, field_hash
from protos.tutti.v1.feast_value_pb2 import (
    FeastFloatList,
    FeastInt64List,
    FeastStringList,
    FeastTimestamp,
    FeastValue,
)

NOW_S = 1_700_000_000.0


def cell(**value) -> bytes:
    return FeastValue(**value).SerializeToString()


def at(seconds: float) -> bytes:
    return FeastTimestamp(seconds=int(seconds)).SerializeToString()


def a_plan(*features: tuple[str, str], ttl_s: float = 0, key_type: str = "STRING") -> EntityPlan:
    return EntityPlan("tutti", "user_id", key_type, (ViewPlan("view", ttl_s, features),))


# One strategy a numeric type: the value as Feast would store it.
NUMBERS = {
    "FLOAT": st.floats(width=32, allow_nan=False).map(lambda v: (cell(float_val=v), v)),
    "DOUBLE": st.floats(allow_nan=False).map(lambda v: (cell(double_val=v), v)),
    "INT32": st.integers(-(2**31), 2**31 - 1).map(lambda v: (cell(int32_val=v), v)),
    "INT64": st.integers(-(2**63), 2**63 - 1).map(lambda v: (cell(int64_val=v), v)),
    "BOOL": st.booleans().map(lambda v: (cell(bool_val=v), v)),
    "UNIX_TIMESTAMP": st.integers(0, 2**40).map(lambda v: (cell(unix_timestamp_val=v), v)),
}
MISSING = st.sampled_from([(None, np.nan), (b"", np.nan), (cell(null_val=0), np.nan)])


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("n", [1, 3 * feast_values.FEW])
@given(data=st.data())
def test_numbers_come_back_as_they_were_stored_in_few_rows_and_in_many(dtype: str, n: int, data) -> None:
    pairs = data.draw(st.lists(NUMBERS[dtype] | MISSING, min_size=n, max_size=n))

    with np.errstate(over="ignore"):
        found = np.asarray(feast_values.numbers([c for c, _ in pairs], dtype), np.float32)
        expected = np.array([float(v) for _, v in pairs], np.float64).astype(np.float32)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", NUMBERS)
@given(cells=st.lists(st.binary(max_size=12), min_size=1, max_size=40))
def test_damaged_numbers_never_raise(dtype: str, cells: list[bytes]) -> None:
    assert len(feast_values.numbers(cells, dtype)) == len(cells)
    assert len(feast_values.strings(cells)) == len(feast_values.objects(cells)) == len(cells)


def test_a_value_written_under_an_older_type_is_read_by_its_own_tag() -> None:
    cells = [cell(int64_val=-7), cell(double_val=0.5), cell(float_val=2.5), cell(string_val="x"), b"\xff\xff"] * 8

    found = np.asarray(feast_values.numbers(cells, "FLOAT"))

    np.testing.assert_array_equal(found, np.array([-7, 0.5, 2.5, np.nan, np.nan] * 8, np.float32))


@pytest.mark.parametrize("n", [1, 100])
def test_a_missing_timestamp_is_stored_as_the_smallest_integer_and_reads_as_missing(n: int) -> None:
    # The parity test found it: Feast's SDK writes pandas' NaT like this and gives None back.
    assert np.isnan(feast_values.numbers([cell(unix_timestamp_val=-(2**63))] * n, "UNIX_TIMESTAMP")).all()


@given(st.lists(st.none() | st.text(max_size=300)))
def test_strings_come_back_whatever_their_length_and_script(texts: list[str | None]) -> None:
    cells = [None if text is None else cell(string_val=text) for text in texts]

    assert feast_values.strings(cells) == [text or "" for text in texts]


def test_lists_and_bytes_are_decodable_and_no_model_input() -> None:
    plan = a_plan(("f", "FLOAT_LIST"), ("s", "STRING_LIST"), ("e", "INT64_LIST"), ("b", "BYTES"), ("n", "FLOAT_LIST"))
    row = [
        cell(float_list_val=FeastFloatList(val=[0.5, 2.0])),
        cell(string_list_val=FeastStringList(val=["a", "ü"])),
        cell(int64_list_val=FeastInt64List()),
        cell(bytes_val=b"\x00\x01"),
        None,
        at(NOW_S),
    ]

    columns = plan.decode([row], NOW_S)

    assert columns.numeric.shape == columns.categorical.shape == (1, 0)
    assert {name: values[0] for name, values in columns.others.items()} == {
        "view__f": (0.5, 2.0),
        "view__s": ("a", "ü"),
        "view__e": (),
        "view__b": b"\x00\x01",
        "view__n": None,
    }


@pytest.mark.parametrize("n", [1, 100])
def test_a_row_past_its_ttl_is_missing_and_one_on_the_edge_is_not(n: int) -> None:
    plan = a_plan(("x", "FLOAT"), ("s", "STRING"), ttl_s=60)
    values = [cell(float_val=1), cell(string_val="a")]
    rows = [[*values, at(NOW_S - 60)], [*values, at(NOW_S - 61)]] * n

    columns = plan.decode(rows, NOW_S)

    np.testing.assert_array_equal(columns.numeric[:2], [[1], [np.nan]])
    assert columns.categorical[:2].tolist() == [["a"], [""]]
    assert columns.found[:2].tolist() == [True, False]


def test_ttl_is_each_views_own() -> None:
    fresh, stale = ViewPlan("fresh", 0, (("x", "INT64"),)), ViewPlan("stale", 60, (("x", "INT64"),))
    plan = EntityPlan("tutti", "item_id", "STRING", (stale, fresh))

    columns = plan.decode([[cell(int64_val=1), at(NOW_S - 100), cell(int64_val=2), at(NOW_S - 100)]], NOW_S)

    assert plan.numeric == ("stale__x", "fresh__x")
    np.testing.assert_array_equal(columns.numeric, [[np.nan, 2]])
    assert columns.found.tolist() == [True]


def test_an_unknown_entity_is_all_missing() -> None:
    plan = a_plan(("x", "FLOAT"), ("s", "STRING"))

    columns = plan.decode([[None, None, None]], NOW_S)

    assert np.isnan(columns.numeric).all()
    assert columns.categorical.tolist() == [[""]]
    assert columns.found.tolist() == [False]


def test_no_rows_make_empty_columns() -> None:
    columns = a_plan(("x", "FLOAT"), ("s", "STRING")).decode([], NOW_S)

    assert columns.numeric.shape == (0, 1)
    assert columns.categorical.shape == (0, 1)


WORDS = st.one_of(st.none(), st.just(b""), st.text(max_size=200).map(lambda v: cell(string_val=v)))
MOMENTS = st.one_of(st.none(), st.binary(max_size=4), st.integers(0, 200).map(lambda age: at(NOW_S - age)))
ANY_NUMBER = st.one_of(
    *(one.map(lambda found: found[0]) for one in (*NUMBERS.values(), MISSING)), st.binary(max_size=12)
)


@given(data=st.data())
def test_one_row_alone_is_decoded_as_a_row_among_others(data) -> None:
    features = (*((f"n{i}", dtype) for i, dtype in enumerate(NUMBERS)), ("w", "STRING"), ("other", "FLOAT_LIST"))
    views = (ViewPlan("lasting", 0, features), ViewPlan("fleeting", 60, features[::-1]))
    plan = EntityPlan("tutti", "user_id", "STRING", views)
    row = []
    for view in views:
        for name, dtype in view.features:
            strategy = WORDS if name == "w" else MISSING.map(lambda found: found[0]) if name == "other" else ANY_NUMBER
            # A value written under an older type, or damaged, may stand anywhere.
            row.append(
                data.draw(
                    strategy
                    if dtype not in NUMBERS
                    else st.one_of(strategy, NUMBERS[dtype].map(lambda found: found[0]))
                )
            )
        row.append(data.draw(MOMENTS))

    one, columns = plan.decode_one(row, NOW_S), plan.decode([row], NOW_S)

    np.testing.assert_array_equal(one.numeric, columns.numeric[0])
    assert one.numeric.dtype == np.float32
    assert one.categorical == tuple(columns.categorical[0])
    assert one.found == columns.found[0]


@pytest.mark.parametrize("dtype", ["INT32", "INT64", "UNIX_TIMESTAMP"])
@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16_383, 16_384, 1_234_567, 2_097_151, 2_097_152, 2**31 - 1])
def test_whole_numbers_of_every_length_are_read_as_the_proto_reads_them(dtype: str, value: int) -> None:
    field = {"INT32": "int32_val", "INT64": "int64_val", "UNIX_TIMESTAMP": "unix_timestamp_val"}[dtype]

    assert feast_values.number(cell(**{field: value}), feast_values.NUMERIC[dtype]) == value


@given(st.binary(max_size=12), st.sampled_from(sorted(NUMBERS)))
def test_whatever_stands_in_a_cell_one_number_is_what_the_proto_makes_of_it(raw: bytes, dtype: str) -> None:
    tag = feast_values.NUMERIC[dtype]
    damaged = bytes([tag]) + raw

    # A truth value of two bytes may be any number below 128, as it always was.
    if dtype != "BOOL":
        np.testing.assert_equal(feast_values.number(damaged, tag), feast_values._slow_number(damaged))


def test_one_row_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="3 fields"):
        a_plan(("x", "FLOAT"), ("s", "STRING")).decode_one([None, None], NOW_S)


def test_a_reply_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="3 fields"):
        a_plan(("x", "FLOAT"), ("s", "STRING")).decode([[None, None]], NOW_S)


def test_keys_and_fields_are_those_of_the_format_description() -> None:
    plan = a_plan(("x", "FLOAT"))

    assert plan.redis_key("ü7") == (
        struct.pack("<III", 1, 2, 7) + b"user_id" + struct.pack("<II", 2, 3) + "ü7".encode() + b"tutti"
    )
    assert plan.fields == (struct.pack("<I", field_hash("view:x")), b"_ts:view")
    assert a_plan(key_type="INT64").redis_key("-3").endswith(struct.pack("<IIq", 4, 8, -3) + b"tutti")


@pytest.mark.parametrize("not_an_int64", ["anna", "", str(2**63)])
def test_an_id_that_an_integer_key_cannot_hold_is_refused(not_an_int64: str) -> None:
    with pytest.raises(ValueError, match="int64"):
        a_plan(key_type="INT64").redis_key(not_an_int64)


def test_a_saved_plan_is_the_same_plan_and_a_changed_file_is_refused(tmp_path: Path) -> None:
    plan = ReadPlan("reranking_v1", a_plan(("x", "FLOAT")), EntityPlan("tutti", "item_id", "STRING", ()))
    path = tmp_path / "read_plan.json"

    plan.save(path)
    loaded = ReadPlan.load(path)

    assert loaded == plan
    assert loaded.digest == plan.digest
    path.write_text(path.read_text().replace("FLOAT", "DOUBLE"))
    with pytest.raises(PlanError, match="digest"):
        ReadPlan.load(path)
    path.write_text("{}")
    with pytest.raises(PlanError, match="train again"):
        ReadPlan.load(path)


def test_the_digest_knows_order_and_type() -> None:
    item = EntityPlan("tutti", "item_id", "STRING", ())
    orders = [(("x", "FLOAT"), ("y", "FLOAT")), (("y", "FLOAT"), ("x", "FLOAT")), (("x", "INT64"), ("y", "FLOAT"))]

    assert len({ReadPlan("s", a_plan(*features), item).digest for features in orders}) == 3


def test_two_features_that_feast_would_store_in_one_field_are_refused() -> None:
    # Found by search; nothing else is special about them.
    with pytest.raises(PlanError, match="share one field"):
        check_collisions(["view:f43328", "view:f93300"])
