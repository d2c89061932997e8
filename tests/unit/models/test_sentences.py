"""A sentence encoder from a folder: a small real graph and a small real tokenizer, nothing downloaded."""

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from services.content_based.encoder import Described
from services.content_based.model import Parameters
from services.content_based.sentences import MODEL_FILE, TOKENIZER_FILE, EncoderUnusable, SentenceEncoder
from services.content_based.train import fit, fitted
from tests.support.small_dataset import a_dataset

WORDS = {"[PAD]": 0, "[UNK]": 1, "red": 2, "mug": 3, "lamp": 4}
VECTORS = np.array([[9, 9], [0, 0], [1, 0], [0, 1], [0, -1]], np.float32)


def an_encoder(folder, inputs=("input_ids", "attention_mask")):
    """Each token's vector, one after the other: (texts, tokens, 2); the padding's is large, to be seen if it counts."""
    folder.mkdir(exist_ok=True)
    tokenizer = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    nodes = [helper.make_node("Gather", ["table", inputs[0]], ["tokens"], axis=0)]
    given = [helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in inputs]
    out = [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, ["b", "t", 2])]
    graph = helper.make_graph(nodes, "words", given, out, [numpy_helper.from_array(VECTORS, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.save(model, folder / "model.onnx")
    return folder


def test_a_text_is_the_mean_of_its_tokens_of_length_one_whatever_stands_beside_it(tmp_path):
    encoder = SentenceEncoder(an_encoder(tmp_path))

    alone = encoder.encode(["red mug"])
    together = encoder.encode(["lamp", "red mug", "mug mug mug mug", ""])

    np.testing.assert_allclose(alone, [[0.5**0.5, 0.5**0.5]], atol=1e-6)
    np.testing.assert_allclose(together, [[0, -1], alone[0], [0, 1], [0, 0]], atol=1e-6)


def test_no_texts_are_no_vectors(tmp_path):
    assert SentenceEncoder(an_encoder(tmp_path)).encode([]).shape[0] == 0


@pytest.mark.parametrize("gone", ["model.onnx", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path, gone):
    an_encoder(tmp_path)
    (tmp_path / gone).unlink()

    with pytest.raises(EncoderUnusable, match=gone.replace(".", "[.]")):
        SentenceEncoder(tmp_path)


def test_a_file_that_is_no_graph_is_refused(tmp_path):
    an_encoder(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"not a graph")

    with pytest.raises(EncoderUnusable, match="cannot be read"):
        SentenceEncoder(tmp_path)


def test_a_graph_that_wants_something_else_is_refused_by_the_name_of_it(tmp_path):
    with pytest.raises(EncoderUnusable, match="'pixels'"):
        SentenceEncoder(an_encoder(tmp_path, inputs=("pixels", "attention_mask")))


def test_item_vectors_follow_the_encoder(tmp_path):
    used = Parameters(sentence_encoder=str(an_encoder(tmp_path)), category_weight=0, brand_weight=0, price_weight=0)
    items = Described(["red mug", "lamp"], ["", "lamp"], [""] * 2, [""] * 2, np.full(2, np.nan, np.float32))

    vectors = fitted(items, used, 7).vectors(items)

    np.testing.assert_allclose(vectors, [[0.5**0.5, 0.5**0.5], [0, -1]], atol=1e-6)


def test_the_encoder_goes_with_the_model(tmp_path):
    encoder = an_encoder(tmp_path / "encoder")
    out = tmp_path / "artefact"
    out.mkdir()

    fit(a_dataset(), {"sentence_encoder": str(encoder)}, 7, out)
    shutil.rmtree(encoder)

    assert (out / MODEL_FILE).is_file()
    assert (out / TOKENIZER_FILE).is_file()
    assert SentenceEncoder(out).encode(["mug"]).tolist() == [[0, 1]]
