"""MovieLens: three shapes, one result."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from services.training.importers import DatasetError

RATINGS = [(1, 10, 5, 978300760), (1, 20, 3, 978302109), (2, 10, 4, 978300000)]
FLAGS = ["0"] * 19


def film_100k(number: int, title: str, *genres: int) -> str:
    flags = ["1" if place in genres else "0" for place in range(19)]
    return "|".join([str(number), title, "01-Jan-1995", "", "http://example.org", *flags]) + "\n"


SHAPES = {
    "100K": {
        "u.data": "".join("\t".join(map(str, row)) + "\n" for row in RATINGS),
        "u.item": (film_100k(10, "Café (1995)", 8, 14) + film_100k(20, "Void (1990)", 0)).encode("latin-1"),
    },
    "1M": {
        "ratings.dat": "".join("::".join(map(str, row)) + "\n" for row in RATINGS),
        "movies.dat": "10::Café (1995)::Drama|Romance\n20::Void (1990)::(no genres listed)\n".encode("latin-1"),
    },
    "25M": {
        "ratings.csv": "userId,movieId,rating,timestamp\n"
        + "".join(f"{user},{film},{rating}.0,{at}\n" for user, film, rating, at in RATINGS),
        "movies.csv": "movieId,title,genres\n10,Café (1995),Drama|Romance\n20,Void (1990),(no genres listed)\n",
    },
}


@pytest.mark.parametrize("shape", SHAPES)
def test_ratings_of_four_and_more_become_purchases_in_order_of_time(shape, write, imported):
    shop = imported("movielens", write(SHAPES[shape]))

    assert shop.columns("event_id", "user_id", "item_id", "event_type") == [
        ("movielens-3", "2", "10", "purchase"),
        ("movielens-1", "1", "10", "purchase"),
    ]
    assert shop.events[0]["timestamp"] == datetime.fromtimestamp(978300000, UTC)
    assert shop.report.rows_dropped == {"rating below 4": 1}


@pytest.mark.parametrize("shape", SHAPES)
def test_films_keep_their_letters_genres_and_year(shape, write, imported):
    shop = imported("movielens", write(SHAPES[shape]))

    assert shop.items["10"]["title"] == "Café (1995)"
    assert shop.items["10"]["category"] == "Drama"
    assert json.loads(shop.items["10"]["attributes"]) == {"genres": ["Drama", "Romance"], "year": 1995}
    assert shop.items["20"]["category"] is None


def test_the_threshold_is_the_users_to_choose(write, imported):
    shop = imported("movielens", write(SHAPES["1M"]), min_rating=3)

    assert shop.report.rows_kept == 3


def test_without_the_film_file_items_are_named_after_their_ids(write, imported):
    shop = imported("movielens", write({"ratings.dat": SHAPES["1M"]["ratings.dat"]}))

    assert shop.items["10"]["title"] == "Item 10"
    assert (shop.report.items_read, shop.report.items_from_events) == (0, 1)


def test_a_title_may_hold_the_divider(write, imported):
    folder = write({**SHAPES["1M"], "movies.dat": "10::Face::Off (1997)::Action\n"})

    assert imported("movielens", folder).items["10"]["title"] == "Face::Off (1997)"


def test_a_rating_in_letters_is_named_with_line_and_column(write, imported):
    folder = write({"ratings.dat": "1::10::5::978300760\n1::20::five::978302109\n"})

    with pytest.raises(DatasetError) as refused:
        imported("movielens", folder)

    assert str(refused.value) == (
        "ratings.dat:2: column Rating: found 'five'; expected a number from 0.5 to 5; is this the MovieLens 1M format?"
    )


@pytest.mark.parametrize(
    ("row", "column"),
    [("1::10::6::978300760", "Rating"), ("1::10::nan::978300760", "Rating"), ("1::10::5::978300760000", "Timestamp"),
     ("1::::5::978300760", "MovieID"), ("1.5::10::5::978300760", "UserID")],
)  # fmt: skip
def test_a_value_out_of_range_is_refused(row, column, write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("movielens", write({"ratings.dat": f"1::10::5::978300760\n{row}\n"}))

    assert (refused.value.line, refused.value.column) == (2, column)


@pytest.mark.parametrize("row", ["1::10::5", "1::10::5::978300760::9", "1\t10\t5\t978300760"])
def test_a_row_of_another_width_is_refused_with_its_line(row, write, imported):
    with pytest.raises(DatasetError) as refused:
        imported("movielens", write({"ratings.dat": f"1::10::5::978300760\n\n{row}\n"}))

    assert refused.value.line == 3


def test_a_film_line_of_another_format_is_refused_with_its_line(write, imported):
    folder = write({**SHAPES["100K"], "u.item": film_100k(10, "Fine (1995)", 1) + "20|Short|1\n"})

    with pytest.raises(DatasetError) as refused:
        imported("movielens", folder)

    assert (refused.value.file.name, refused.value.line) == ("u.item", 2)


def test_a_folder_without_ratings_says_what_it_holds_and_what_is_wanted(write, imported):
    with pytest.raises(
        DatasetError, match=r"a folder with notes.txt; expected one of ratings.csv, ratings.dat, u.data"
    ):
        imported("movielens", write({"notes.txt": "hello"}))
