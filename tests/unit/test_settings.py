"""Settings: defaults, file, environment, one checked tree; every refusal names the key."""

import json
import tomllib

import pytest
from pydantic import ValidationError

from orchestrator import settings
from orchestrator.settings import DEFAULTS, SettingsError, load, overlay
from orchestrator.supervisor.plan import to_toml


@pytest.fixture
def defaults():
    return tomllib.loads(DEFAULTS.read_text())


@pytest.fixture
def a_file(tmp_path):
    def write(text):
        path = tmp_path / "tutti.toml"
        path.write_text(text)
        return path

    return write


def the_refusal(path=None, **environment):
    with pytest.raises(SettingsError) as refused:
        load(path, environment)
    return str(refused.value)


def leaves(tree, at=()):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*at, key))
    else:
        yield at, tree


def test_the_defaults_load_and_say_what_the_file_says(defaults):
    loaded = load(environment={}).model_dump(mode="json")

    expected = defaults | {"sources": loaded["sources"]}
    expected["reranker"]["targets"] = {arm: [address] for arm, address in expected["reranker"]["targets"].items()}
    assert {path: value for path, value in leaves(loaded) if path[0] != "sources"} == {
        path: value for path, value in leaves(expected) if path[0] != "sources"
    }
    assert [s["name"] for s in loaded["sources"]] == [s["name"] for s in defaults["sources"]]


def test_every_default_is_written_in_the_file_and_nowhere_else(defaults):
    """But for an entry of `sources`, which is a pattern, and for addresses, where none is no value."""
    pattern = {"quota", "weight", "share", "parameters"}
    for model in vars(settings).values():
        if isinstance(model, type) and issubclass(model, settings._Section):
            for name, field in model.model_fields.items():
                expected = name == "targets" or (model is settings.Source and name in pattern)
                assert field.is_required() or expected, (model, name)


def test_a_file_lies_over_the_defaults_key_by_key(a_file):
    tree = load(a_file("[edge]\nport = 9000\n[fusion]\nk = 10\n"), {})

    assert (tree.edge.port, tree.fusion.k) == (9000, 10)
    assert tree.edge.host == load(environment={}).edge.host
    assert tree.fusion.method == "z_score"


def test_the_file_can_be_named_by_the_environment(a_file):
    path = a_file("[edge]\nport = 9001\n")

    assert load(environment={"TUTTI_CONFIG": str(path)}).edge.port == 9001


def test_a_file_named_outright_is_preferred_to_the_environments(a_file, tmp_path):
    assert load(a_file("[edge]\nport = 9002\n"), {"TUTTI_CONFIG": str(tmp_path / "missing.toml")}).edge.port == 9002


def test_joining_calls_can_be_switched_off_by_file_and_environment(a_file):
    assert load(None, {}).coalesce
    assert not load(a_file("coalesce = false"), {}).coalesce
    assert not load(None, {"TUTTI_COALESCE": "false"}).coalesce


def test_the_environment_lies_over_the_file(a_file):
    tree = load(a_file("[edge]\nport = 9000\nhost = '::1'\n"), {"TUTTI_EDGE__PORT": "9003"})

    assert (tree.edge.port, tree.edge.host) == (9003, "::1")


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("TUTTI_REDIS__URL", "redis://example:1/0", lambda tree: tree.redis.url == "redis://example:1/0"),
        ("TUTTI_EDGE__HOST", "0.0.0.0", lambda tree: tree.edge.host == "0.0.0.0"),
        ("TUTTI_SLATE_CACHE__ENABLED", "false", lambda tree: tree.slate_cache.enabled is False),
        ("TUTTI_STAGES__RERANK__CAP_MS", "12.5", lambda tree: tree.stages.rerank.cap_ms == 12.5),
        (
            "TUTTI_RERANKER__TARGETS",
            '{ champion = "h:1" }',
            lambda tree: tree.reranker.targets == {"champion": ("h:1",)},
        ),
        ("TUTTI_DATA__PATH", "/srv/shop", lambda tree: str(tree.data.path) == "/srv/shop"),
    ],
)
def test_a_variable_is_toml_where_it_parses_and_text_where_it_does_not(name, value, found):
    assert found(load(environment={name: value}))


def test_variables_that_are_not_settings_are_left_alone():
    plain = load(environment={})

    assert load(environment={"TUTTI_HOME": "/x", "TUTTI_DATA": "/y", "HOME": "/z", "TUTTIFRUTTI": "1"}) == plain


def test_sources_are_merged_by_name_and_new_ones_come_last(a_file):
    tree = load(
        a_file(
            '[[sources]]\nname = "trending"\ntargets = { champion = "h:1" }\nquota = 7\n'
            '[[sources]]\nname = "content_based"\nweight = 0.25\n'
        ),
        {},
    )

    names = [source.name for source in tree.sources]
    assert names == ["collaborative_filtering", "content_based", "trending"]
    content_based, trending = tree.sources[1], tree.sources[2]
    assert content_based.weight == 0.25
    assert content_based.targets == {"champion": ("127.0.0.1:50052",)}
    assert (trending.quota, trending.weight, trending.share) == (7, 1.0, 1.0)


def test_a_second_arm_of_a_source_stands_beside_the_first(a_file):
    tree = load(a_file('[[sources]]\nname = "content_based"\ntargets = { challenger = "h:2" }\n'), {})

    assert tree.sources[1].targets == {"champion": ("127.0.0.1:50052",), "challenger": ("h:2",)}


def test_replicas_are_a_list_of_addresses_and_replace_a_single_one(a_file):
    tree = load(a_file('[[sources]]\nname = "content_based"\ntargets = { champion = ["h:1", "h:2"] }\n'), {})

    assert tree.sources[1].targets == {"champion": ("h:1", "h:2")}


@pytest.mark.parametrize("addresses", ["[]", '["h:1", "h:1"]', "[1]", "1"])
def test_replicas_without_an_address_each_are_refused(addresses):
    with pytest.raises(SettingsError, match=r"reranker\.targets\.champion"):
        load(environment={"TUTTI_RERANKER__TARGETS": f"{{ champion = {addresses} }}"})


@pytest.mark.parametrize(
    ("name", "value", "key"),
    [
        ("TUTTI_RDIS__URL", "x", "rdis"),
        ("TUTTI_REDIS__ULR", "x", "redis.ulr"),
        ("TUTTI_EDGE__PORT", "many", "edge.port"),
        ("TUTTI_EDGE__PORT", "70000", "edge.port"),
        ("TUTTI_BUDGET__TOTAL_MS", "0", "budget.total_ms"),
        ("TUTTI_FUSION__METHOD", "magic", "fusion.method"),
        ("TUTTI_FUSION__K", "0", "fusion.k"),
        ("TUTTI_LOG__LEVEL", "loud", "log.level"),
        ("TUTTI_FILTERS__WITHIN_SHARE", "1.5", "filters.within_share"),
        ("TUTTI_PLACEMENTS__HOME__RERANK", "perhaps", "placements.home.rerank"),
        ("TUTTI_STAGES__CACHE__CAP_MS", "-1", "stages.cache.cap_ms"),
    ],
)
def test_a_wrong_key_type_or_value_is_refused_by_its_name_with_what_was_found(name, value, key):
    message = the_refusal(**{name: value})

    assert message.startswith(f"{key}: ")
    assert value in message.partition("; found ")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[sources]]\nname = "content_based"\nweight = -1\n', "sources.1.weight"),
        ('[[sources]]\nname = "content_based"\nquota = -1\n', "sources.1.quota"),
        ('[[sources]]\nname = "content_based"\nshare = 0\n', "sources.1.share"),
        ('[[sources]]\nname = "Content Based"\n', "sources.2.name"),
        ("[[sources]]\nweight = 1\n", "sources: every entry needs a name; found {'weight': 1}"),
        ('sources = ["content_based"]\n', "sources: every entry needs a name; found 'content_based'"),
        ("[edge\n", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_place(a_file, text, expected):
    assert expected in the_refusal(a_file(text))


def test_a_missing_file_is_named_with_what_to_do(tmp_path):
    message = the_refusal(tmp_path / "gone.toml")

    assert str(tmp_path / "gone.toml") in message
    assert "--config" in message


def test_a_budget_that_leaves_a_stage_nothing_names_both_keys():
    message = the_refusal(TUTTI_BUDGET__TOTAL_MS="60")

    assert "stages.cache.reserve_after_ms" in message
    assert "budget.total_ms" in message
    assert "lower the one or raise the other" in message


def test_slates_that_are_forgotten_while_they_would_still_be_served_name_both_keys():
    message = the_refusal(TUTTI_SLATE_CACHE__KEPT_S="60")

    assert "slate_cache.kept_s" in message
    assert "slate_cache.stale_s" in message


def test_sources_that_all_weigh_nothing_are_refused(a_file):
    message = the_refusal(
        a_file(
            '[[sources]]\nname = "content_based"\nweight = 0\n'
            '[[sources]]\nname = "collaborative_filtering"\nweight = 0\n'
        )
    )

    assert "at least one weight must be above 0" in message


def test_two_sources_of_one_name_are_refused(defaults):
    defaults["sources"].append(defaults["sources"][0])

    with pytest.raises(ValidationError, match="names must be unique"):
        settings.Settings.model_validate(defaults)


def test_the_tree_is_frozen():
    tree = load(environment={})

    with pytest.raises(ValidationError, match="frozen"):
        tree.edge.port = 1


def test_a_source_of_the_defaults_is_switched_off_by_a_quota_of_nought(tmp_path):
    overlay = tmp_path / "tutti.toml"
    overlay.write_text('[[sources]]\nname = "content_based"\nquota = 0\n')

    assert [source.name for source in load(overlay, {}).sources] == ["collaborative_filtering"]


def test_one_variable_cannot_be_a_value_and_a_table():
    with pytest.raises(SettingsError, match="TUTTI_REDIS__URL__Y"):
        load(environment={"TUTTI_REDIS__URL": "redis://h:1/0", "TUTTI_REDIS__URL__Y": "z"})


def test_a_share_that_leaves_no_time_for_a_call_is_refused_by_name(tmp_path):
    overlay = tmp_path / "tutti.toml"
    overlay.write_text('[[sources]]\nname = "content_based"\nshare = 0.1\n')

    with pytest.raises(SettingsError, match=r"content_based\.share"):
        load(overlay, {})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[admission]\nlimit_min = 40\n", "limit_min = 40, limit_initial = 32 and limit_max = 128"),
        ("[admission]\nlimit_max = 16\n", "limit_initial = 32 and limit_max = 16"),
        ("[admission.bulk]\ncheap_share = 0.9\n", "bulk.cheap_share = 0.9 is above best_effort.cheap_share = 0.8"),
        (
            "[admission.critical]\nshed_lag_ms = 40\n",
            "best_effort.shed_lag_ms = 50 is above critical.shed_lag_ms = 40",
        ),
        ("[admission.bulk]\nshed_lag_ms = 5\n", "bulk.cheap_lag_ms = 10 is above bulk.shed_lag_ms = 5"),
    ],
)
def test_admission_that_serves_the_lesser_better_or_has_crossed_bounds_is_refused(a_file, text, expected):
    refusal = the_refusal(a_file(text))

    assert refusal.startswith("admission: ")
    assert expected in refusal


# Once: the settings file of a running system named the sources that were left, and laid over the defaults it brought
# back the one that was switched off, which then nobody answered for.
def test_a_source_that_was_switched_off_stays_off_when_settings_are_handed_on(a_file):
    one_off = load(a_file('[[sources]]\nname = "collaborative_filtering"\nquota = 0\n'), {})

    handed_on = load(a_file(to_toml(overlay(one_off))), {})

    assert [source.name for source in handed_on.sources] == ["content_based"]
    assert handed_on == one_off
    assert load(a_file(to_toml(overlay(load(environment={})))), {}) == load(environment={})


def what_serves_was_tuned_to(folder, weights, method=None):
    (folder / "models").mkdir(parents=True)
    report = {"tuned": {"format": 1, "fusion": {"method": method, "weights": weights}}}
    (folder / "models" / "training.json").write_text(json.dumps(report))
    return folder


def weights_of(loaded):
    return {source.name: source.weight for source in loaded.sources}


def test_the_fusion_that_what_serves_was_tuned_to_replaces_the_defaults(tmp_path, defaults):
    what_serves_was_tuned_to(tmp_path, {"content_based": 0.05, "gone": 1.0}, "reciprocal_rank")

    by_argument, by_setting = load(None, {}, tmp_path), load(None, {"TUTTI_DATA__PATH": str(tmp_path)})

    assert weights_of(by_argument) == weights_of(by_setting) == {"collaborative_filtering": 1.0, "content_based": 0.05}
    assert by_argument.fusion.method == "reciprocal_rank"
    assert by_argument.fusion.k == defaults["fusion"]["k"]


def test_a_weight_that_somebody_wrote_down_goes_before_a_tuned_one(tmp_path, a_file):
    what_serves_was_tuned_to(tmp_path / "shop", {"collaborative_filtering": 0.5, "content_based": 0.05})
    written = a_file('[[sources]]\nname = "content_based"\nweight = 0.7\n')

    loaded = load(written, {"TUTTI_FUSION__METHOD": "z_score"}, tmp_path / "shop")

    assert weights_of(loaded) == {"collaborative_filtering": 0.5, "content_based": 0.7}


def test_a_running_system_keeps_the_weights_it_was_started_with(tmp_path, a_file):
    before = load(None, {}, tmp_path)
    what_serves_was_tuned_to(tmp_path / "shop", {"content_based": 0.05})

    assert weights_of(load(a_file(to_toml(overlay(before))), {}, tmp_path / "shop")) == weights_of(before)


def test_a_tuned_fusion_that_cannot_be_is_refused(tmp_path):
    what_serves_was_tuned_to(tmp_path, {"content_based": -1})

    assert "fusion" in the_refusal(None, TUTTI_DATA__PATH=str(tmp_path))


def test_a_path_that_is_none_is_refused_as_before(a_file):
    assert "data.path" in the_refusal(a_file("[data]\npath = 3\n"))


def test_a_wait_for_replicas_must_end_before_the_wait_for_any_answer():
    message = the_refusal(TUTTI_EVENTS__WAIT_REPLICAS="1", TUTTI_EVENTS__WAIT_MS="1000")

    assert "events.wait_ms" in message
    assert "redis.event_timeout_ms" in message
    assert load(environment={"TUTTI_EVENTS__WAIT_MS": "1000"}).events.wait_replicas == 0, "nobody waits"


def test_events_lie_in_redis_unless_kafka_is_named_and_no_third_broker_is_known():
    assert load(environment={}).events.broker == "redis"
    named = load(environment={"TUTTI_EVENTS__BROKER": "kafka", "TUTTI_EVENTS__KAFKA__TOPIC": "shop.events"}).events
    assert (named.broker, named.kafka.topic, named.kafka.acks, named.kafka.file) == (
        "kafka",
        "shop.events",
        "all",
        None,
    )
    assert "events.broker" in the_refusal(TUTTI_EVENTS__BROKER="rabbit")


def test_acknowledgement_by_nobody_is_refused_for_an_accepted_event_would_be_nowhere():
    assert "events.kafka.acks" in the_refusal(TUTTI_EVENTS__KAFKA__ACKS="none")


def test_a_topic_that_kafka_would_refuse_is_refused():
    assert "events.kafka.topic" in the_refusal(TUTTI_EVENTS__KAFKA__TOPIC="shop events")


def test_users_are_not_forgotten_before_visitors():
    message = the_refusal(TUTTI_RETENTION__USER_DAYS="7")

    assert "retention.user_days" in message
    assert "retention.visitor_days" in message


def test_what_is_kept_is_kept_for_whole_seconds():
    found = load(environment={"TUTTI_RETENTION__USER_DAYS": "0.00001", "TUTTI_RETENTION__VISITOR_DAYS": "0.000001"})

    assert (found.retention.user_s, found.retention.visitor_s) == (1, 1)
