"""Where networks are trained: chosen by what torch sees, and said plainly when it is not there."""

import pytest
import torch

from services.training import device, pipeline
from services.training.device import DeviceUnusable, chosen


@pytest.mark.parametrize(
    ("asked", "sees", "place"),
    [
        ("auto", True, "cuda"),
        ("auto", False, "cpu"),
        ("cpu", True, "cpu"),
        ("cpu", False, "cpu"),
        ("cuda", True, "cuda"),
    ],
)
def test_a_gpu_is_taken_where_torch_sees_one_unless_the_processor_is_asked_for(asked, sees, place):
    assert chosen(asked, lambda: sees) == place


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline.device, "chosen", lambda asked: chosen(asked, lambda: False))

    with pytest.raises(DeviceUnusable, match=r"sees no GPU.*--device auto"):
        pipeline.train(tmp_path / "nowhere", [], on="cuda")


def test_a_device_is_used_inside_and_forgotten_outside(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)

    with device.using("cuda"):
        inside = device.current()

    assert (inside, device.current()) == (torch.device("cuda"), torch.device("cpu"))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
