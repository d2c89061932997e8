"""The list of erased people: who is in it is found, and cannot be read off it."""

from protos import redactions


def test_nobody_was_erased_where_there_is_no_file(tmp_path):
    assert redactions.read(tmp_path).of_users(["a"]) == {}
    assert list(tmp_path.iterdir()) == []


def test_who_was_added_is_found_with_the_latest_moment(tmp_path):
    redactions.add(tmp_path, ["a"], [], 5)
    redactions.add(tmp_path, ["b", "a"], ["c"], 9)
    redactions.add(tmp_path, ["b"], [], 7)

    found = redactions.read(tmp_path)

    assert found.of_users(["a", "b", "c", "d"]) == {"a": 9, "b": 9}


def test_a_visitor_is_no_user_of_the_same_id(tmp_path):
    redactions.add(tmp_path, [], ["a"], 5)

    assert redactions.read(tmp_path).of_users(["a"]) == {}


def test_the_file_names_nobody_and_two_shops_files_have_nothing_in_common(tmp_path):
    files = []
    for shop in ("one", "two"):
        (tmp_path / shop).mkdir()
        redactions.add(tmp_path / shop, ["erika-mustermann"], [], 5)
        files.append(redactions.read(tmp_path / shop))
        assert b"erika" not in (tmp_path / shop / redactions.FILE_NAME).read_bytes()

    assert not files[0].erased_at_us.keys() & files[1].erased_at_us.keys()
    assert "erika" not in repr(files)


def test_nothing_half_written_is_left(tmp_path):
    redactions.add(tmp_path, ["a"], [], 5)

    assert [path.name for path in tmp_path.iterdir()] == [redactions.FILE_NAME]
