"""An item's vector: the one that training stored, made again by serving."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from services.content_based import train
from services.content_based.encoder import Described
from services.content_based.model import Parameters
from services.content_based.terms import Terms, pieces, words
from services.training import registry
from tests.support.small_dataset import N_ITEMS, a_dataset

DATASET = a_dataset()
texts = st.text(alphabet="ab cde FÜ1-é", max_size=30)


def a_catalogue():
    return train.described(DATASET.items)


def one(items, row):
    columns = (items.titles, items.descriptions, items.categories, items.brands, items.prices)
    return Described(*(column[row : row + 1] for column in columns))


@given(st.lists(texts, min_size=1, max_size=8))
def test_words_and_pieces_are_scikit_learns(documents):
    word = TfidfVectorizer(ngram_range=(1, 2)).build_analyzer()
    piece = TfidfVectorizer(analyzer="char_wb", ngram_range=(4, 5)).build_analyzer()

    for document in documents:
        assert sorted(words(document)) == sorted(word(document))
        assert sorted(pieces(document)) == sorted(piece(document))


@pytest.mark.parametrize(("split", "least"), [("words", 1), ("pieces", 2)])
def test_weights_are_scikit_learns_when_every_term_counts(split, least):
    documents = ["red mug with a red handle", "blue mug", "garden hoe with handle", ""]
    about = {"ngram_range": (1, 2)} if split == "words" else {"analyzer": "char_wb", "ngram_range": (4, 5)}
    theirs = TfidfVectorizer(sublinear_tf=True, min_df=least, **about)
    expected = theirs.fit_transform(documents)

    ours = Terms.count(split, documents, 10_000, least)

    assert list(ours.number) == theirs.get_feature_names_out().tolist()
    np.testing.assert_allclose(ours.matrix(documents).toarray(), expected.toarray(), atol=1e-6)


def test_the_most_usual_terms_are_kept_and_the_others_say_nothing():
    documents = ["mug red", "mug blue", "mug tartan", "red hoe"]

    terms = Terms.count("words", documents, 2)

    assert set(terms.number) == {"mug", "red"}
    assert terms.matrix(["tartan hoe"]).nnz == 0


@pytest.mark.parametrize("dimensions", [8, 1000])
def test_an_item_encoded_alone_has_the_vector_that_training_stored(tmp_path, dimensions):
    staged = registry.staging(tmp_path, "content_based")
    fitted = train.fit(DATASET, {"text_dimensions": dimensions}, 7, staged)
    artefact = registry.publish(tmp_path, "content_based", "generator", staged, fitted, DATASET, 7)

    encoder = train.Encoder.load(artefact, Parameters(**artefact.manifest.parameters))

    stored, keys = artefact.array("item_vectors.npy"), artefact.array("item_keys.npy")
    assert keys.tolist() == list(range(N_ITEMS))
    for key in (0, 7, N_ITEMS - 1):
        np.testing.assert_allclose(encoder.vectors(one(a_catalogue(), key))[0], stored[key], atol=1e-5)


def test_an_item_of_which_nothing_is_known_has_no_vector():
    encoder = train.fitted(a_catalogue(), Parameters(), 7)

    vectors = encoder.vectors(Described(["", "zzz"], ["", ""], ["", ""], ["", ""], np.full(2, np.nan, np.float32)))

    assert not vectors.any()


def test_a_price_beyond_all_that_was_seen_is_near_the_dearest():
    encoder = train.fitted(a_catalogue(), Parameters(), 7)
    blank = [""] * 3

    far, dearest, cheapest = encoder.vectors(
        Described(blank, blank, blank, blank, np.asarray([9000, 50, 1], np.float32))
    )

    assert far @ dearest > far @ cheapest
    assert np.linalg.norm(far) == pytest.approx(1)
