"""
A sentence encoder from a local folder, in place of TF-IDF for titles and descriptions: ONNX in, unit vectors out.

The folder is what sentence-transformers and Optimum export: `model.onnx` (or `onnx/model.onnx`) and `tokenizer.json`.
Both are data, run by onnxruntime and the `tokenizers` package; nothing is downloaded and nothing unpickled. Both are
copied into the artefact, so that what was trained with can encode the items of tomorrow.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from protos.arrays import Float32

MODEL_FILE, TOKENIZER_FILE = "sentences.onnx", "sentences_tokenizer.json"
"""Their names inside an artefact."""

_MODELS = ("model.onnx", "onnx/model.onnx", MODEL_FILE)
_TOKENIZERS = ("tokenizer.json", TOKENIZER_FILE)
_LONGEST = 256
"""Tokens read of a text. Borrowed: what the widespread MiniLM encoders were trained with."""
_BATCH = 64
"""Texts encoded at once. Judged: bounds the memory of attention, and larger was not tried."""
_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


class EncoderUnusable(ValueError):
    """The folder holds no sentence encoder that can be run here; the message says what was looked for."""


class SentenceEncoder:
    """Encodes texts; one thread."""

    def __init__(self, folder: Path) -> None:
        """
        Open the encoder of *folder*.

        Raises:
            EncoderUnusable: a file is missing or unreadable, the graph wants other inputs, or `tokenizers` is missing.
        """
        self._model, self._vocabulary = _find(folder, _MODELS), _find(folder, _TOKENIZERS)
        try:
            from tokenizers import Tokenizer
        except ImportError as missing:
            raise EncoderUnusable(
                "a sentence encoder needs the package tokenizers; install it with: pip install 'tutti[sentences]'"
            ) from missing
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._tokenizer: Any = Tokenizer.from_file(str(self._vocabulary))
            self._session = onnxruntime.InferenceSession(str(self._model), options, providers=["CPUExecutionProvider"])
        # onnxruntime and tokenizers raise classes of their own, derived from Exception alone.
        except Exception as broken:
            raise EncoderUnusable(f"the sentence encoder in {folder} cannot be read: {broken}") from broken
        self._inputs = [one.name for one in self._session.get_inputs()]
        if unknown := [name for name in self._inputs if name not in _INPUTS]:
            raise EncoderUnusable(f"{self._model} wants the input {unknown[0]!r}; known are {', '.join(_INPUTS)}")
        self._tokenizer.enable_truncation(_LONGEST)
        self._tokenizer.enable_padding()

    def encode(self, texts: Sequence[str]) -> Float32:
        """
        Unit vectors (len(texts), d) float32; zeros for a text without a word.

        A graph whose output is three-dimensional, one vector a token, is averaged over the tokens that are no padding;
        Reimers and Gurevych, EMNLP 2019.
        """
        # The longest first: a batch is as long as its longest text.
        order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
        parts = [self._batch([texts[i] for i in order[at : at + _BATCH]]) for at in range(0, len(order), _BATCH)]
        if not parts:
            return np.zeros((0, 0), np.float32)
        vectors = np.concatenate(parts)
        out = np.empty_like(vectors)
        out[order] = vectors
        out[[not text.strip() for text in texts]] = 0
        return out

    def copy_to(self, folder: Path) -> None:
        """Put both files into *folder*, under the names of an artefact."""
        shutil.copyfile(self._model, folder / MODEL_FILE)
        shutil.copyfile(self._vocabulary, folder / TOKENIZER_FILE)

    def _batch(self, texts: Sequence[str]) -> Float32:
        encoded = self._tokenizer.encode_batch(list(texts))
        mask = np.array([one.attention_mask for one in encoded], np.int64)
        given = {
            "input_ids": np.array([one.ids for one in encoded], np.int64),
            "attention_mask": mask,
            "token_type_ids": np.array([one.type_ids for one in encoded], np.int64),
        }
        output = np.asarray(self._session.run(None, {name: given[name] for name in self._inputs})[0], np.float32)
        if output.ndim == 3:
            output = (output * mask[:, :, None]).sum(1) / np.maximum(mask.sum(1, keepdims=True), 1)
        lengths = np.linalg.norm(output, axis=1, keepdims=True)
        return np.asarray(np.divide(output, lengths, out=np.zeros_like(output), where=lengths > 0), np.float32)


def _find(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise EncoderUnusable(f"no sentence encoder in {folder}: none of {', '.join(names)} is there")
