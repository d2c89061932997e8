"""The file of librdkafka properties: read as Kafka's own tools read it, and never louder than it should be."""

import pytest

from protos.event_topic import OURS, TopicUnusable, properties


def test_names_and_values_are_read_and_comments_and_blanks_are_not(tmp_path):
    path = tmp_path / "client.properties"
    path.write_text("# how to reach the cluster\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b \n")

    assert properties(path) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b"}


def test_no_file_is_no_properties():
    assert properties(None) == {}


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TopicUnusable, match=r"absent\.properties"):
        properties(tmp_path / "absent.properties")


def test_a_line_that_is_none_is_told_by_its_number_and_not_by_what_may_be_a_password(tmp_path):
    path = tmp_path / "client.properties"
    path.write_text("a=b\nsecret\n")

    with pytest.raises(TopicUnusable, match="line 2") as failed:
        properties(path)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("name", sorted(OURS))
def test_what_decides_durability_is_not_changed_behind_the_settings(tmp_path, name):
    path = tmp_path / "client.properties"
    path.write_text(f"{name}=x\n")

    with pytest.raises(TopicUnusable, match=name):
        properties(path)
