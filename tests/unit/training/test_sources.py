"""What the settings say of the generators that are trained."""

import pytest

from services.training.sources import SettingsUnusable, SourceSpec, check, configured


def test_parameters_of_a_source_reach_its_training(tmp_path, monkeypatch):
    settings = tmp_path / "tutti.toml"
    settings.write_text('[[sources]]\nname = "content_based"\nparameters = { half_life_days = 7.0 }\n')
    monkeypatch.setenv("TUTTI_CONFIG", str(settings))

    by_name = {spec.name: spec for spec in configured()}

    assert by_name["content_based"].parameters == {"half_life_days": 7.0}
    assert by_name["collaborative_filtering"].parameters == {}
    check(configured())


def test_a_parameter_that_no_model_has_is_refused_with_those_it_has():
    with pytest.raises(SettingsUnusable, match=r"'half_life'.*half_life_days"):
        check([SourceSpec("content_based", parameters={"half_life": 7.0})])
