"""What is written in Feast's layout is what the reader reads, for every type a feature may have."""

from datetime import UTC, datetime

import numpy as np
import pytest

from protos import feast_cells, feast_values
from protos.feast_layout import EntityPlan, ViewPlan

VALUES = [
    ("FLOAT", 1.5),
    ("DOUBLE", -1 / 3),
    ("INT32", -7),
    ("INT64", 2**40),
    ("BOOL", True),
    ("UNIX_TIMESTAMP", datetime(2024, 3, 1, tzinfo=UTC)),
]


@pytest.mark.parametrize(("dtype", "value"), VALUES)
def test_a_number_is_read_as_it_was_written(dtype, value):
    expected = value.timestamp() if isinstance(value, datetime) else value

    read = feast_values.numbers([feast_cells.cell(value, dtype)], dtype)

    assert np.float32(read[0]) == np.float32(expected)


def test_texts_and_lists_are_read_as_they_were_written():
    assert feast_values.strings([feast_cells.cell(text, "STRING") for text in ("", "ü" * 99)]) == ["", "ü" * 99]
    cells = [feast_cells.cell(value, "STRING_LIST") for value in (["a", "b"], [])]
    assert feast_values.objects(cells) == [("a", "b"), ()]
    assert feast_values.objects([feast_cells.cell(b"raw", "BYTES")]) == [b"raw"]


@pytest.mark.parametrize("value", [None, float("nan")])
def test_what_is_missing_is_feasts_null(value):
    assert feast_cells.cell(value, "FLOAT") == feast_cells.NULL
    assert np.isnan(feast_values.numbers([feast_cells.NULL], "FLOAT")[0])


def test_a_whole_row_goes_through_the_plan():
    plan = EntityPlan("tutti", "user_id", "STRING", (ViewPlan("v", 60.0, (("n", "INT64"), ("t", "STRING"))),))
    row = [
        feast_cells.cell(3, "INT64"),
        feast_cells.cell("x", "STRING"),
        feast_cells.moment(1_700_000_000_123_456),
    ]

    fresh, old = (plan.decode([row], now_s) for now_s in (1_700_000_030.0, 1_700_000_061.0))

    assert fresh.numeric.tolist() == [[3.0]]
    assert fresh.categorical.tolist() == [["x"]]
    assert not old.found.any()
    assert feast_values.event_seconds([row[-1]])[0] == pytest.approx(1_700_000_000.123456, abs=1e-6)
