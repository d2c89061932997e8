"""What was published is what is loaded, or nothing is."""

import json

import numpy as np
import pytest

from protos import artefacts
from protos.artefacts import ArtefactBroken, ArtefactMissing
from services.chassis.model import Fitted
from services.training import registry
from tests.support.small_dataset import a_dataset


def publish(models, seed=7, scores=(3.0, 2.0), name="popular", metrics=None):
    staged = registry.staging(models, name)
    np.savez(staged / "popular.npz", scores=np.array(scores, np.float32))
    fitted = Fitted({"half_life_days": 7.0}, metrics or {})
    return registry.publish(models, name, "popular", staged, fitted, a_dataset(), seed)


@pytest.fixture
def champion(tmp_path):
    artefact = publish(tmp_path)
    registry.promote(tmp_path, "popular", artefact.version)
    return artefact


def test_a_promoted_artefact_is_found_by_its_alias(tmp_path, champion):
    loaded = artefacts.load(tmp_path, "popular")

    assert loaded == champion
    assert loaded.arrays("popular.npz")["scores"].tolist() == [3.0, 2.0]
    assert artefacts.load(tmp_path, "popular", champion.version) == champion


def test_the_version_is_the_content_and_figures_do_not_count(tmp_path):
    first = publish(tmp_path, metrics={"loss": 1.0})

    assert publish(tmp_path, metrics={"loss": 2.0}).version == first.version
    assert publish(tmp_path, scores=(3.0, 1.0)).version != first.version
    assert publish(tmp_path, seed=8).version != first.version


def test_a_changed_file_is_refused(tmp_path, champion):
    with (champion.path / "popular.npz").open("ab") as file:
        file.write(b"x")

    with pytest.raises(ArtefactBroken, match=r"popular\.npz has sha256"):
        artefacts.load(tmp_path, "popular")


def test_a_missing_file_is_refused(tmp_path, champion):
    (champion.path / "popular.npz").unlink()

    with pytest.raises(ArtefactBroken, match=r"missing popular\.npz"):
        artefacts.load(tmp_path, "popular")


def test_a_file_nobody_declared_is_refused(tmp_path, champion):
    (champion.path / "extra.pkl").write_bytes(b"\x80\x04.")

    with pytest.raises(ArtefactBroken, match=r"does not know extra\.pkl"):
        artefacts.load(tmp_path, "popular")


def test_a_changed_manifest_is_refused(tmp_path, champion):
    path = champion.path / artefacts.MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "seed": 99}))

    with pytest.raises(ArtefactBroken, match="the manifest was changed"):
        artefacts.load(tmp_path, "popular")


def test_a_manifest_cannot_name_a_file_outside_its_folder(tmp_path, champion):
    path = champion.path / artefacts.MANIFEST
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "files": {"../../secret": "0"}}))

    with pytest.raises(ArtefactBroken, match="cannot be in an artefact"):
        artefacts.load(tmp_path, "popular")


@pytest.mark.parametrize("alias", ["challenger", "../../etc", "000000000000"])
def test_an_unknown_alias_or_version_says_what_there_is(tmp_path, champion, alias):
    with pytest.raises(ArtefactMissing, match="aliases there: champion"):
        artefacts.load(tmp_path, "popular", alias)


@pytest.mark.parametrize("name", ["../popular", "Popular", ""])
def test_a_name_that_is_no_folder_of_models_is_refused(tmp_path, name):
    with pytest.raises(ArtefactMissing, match="no model can be called"):
        artefacts.load(tmp_path, name)


def test_promoting_another_alias_leaves_the_champion(tmp_path, champion):
    other = publish(tmp_path, seed=8)

    registry.promote(tmp_path, "popular", other.version, "challenger")

    assert artefacts.read_aliases(tmp_path, "popular") == {"champion": champion.version, "challenger": other.version}
    assert {m.version for m in registry.versions(tmp_path, "popular")} == {champion.version, other.version}


def test_what_was_never_published_cannot_be_promoted(tmp_path, champion):
    with pytest.raises(ArtefactMissing):
        registry.promote(tmp_path, "popular", "0" * 12)
    assert artefacts.read_aliases(tmp_path, "popular") == {"champion": champion.version}


def test_publishing_again_repairs_a_broken_copy(tmp_path, champion):
    (champion.path / "popular.npz").write_bytes(b"torn")

    again = publish(tmp_path)

    assert again.version == champion.version
    assert artefacts.load(tmp_path, "popular") == champion


def test_an_undeclared_file_cannot_be_opened(champion):
    with pytest.raises(ArtefactBroken, match=r"it has: popular\.npz"):
        champion.file("other.npz")
