"""Engines are built without a GPU, and an int8 engine is the same bytes wherever it is built."""

from __future__ import annotations

import ctypes
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compile.config import LimitsConfig, toolchain_file
from compile.export import export_torch
from compile.job import ADDR_NO_RANDOMIZE, Jobs
from compile.probe import probe
from compile.quantize_onnx import Reader
from compile.signature import Axis, Signature, Tensor
from compile.toolchain import WORKER

SIGNATURE = Signature(
    inputs=(Tensor("image", "float32", ("batch", 1, 28, 28)),),
    outputs=(Tensor("logits", "float32", ("batch", 10)),),
    axes={"batch": Axis(1, 1, 64)},
)
PLACES = ("a", "bb/cc", "a-folder-with-a-rather-long-name/" * 3 + "x", "q" * 60, "one/two/three/four/five")
"""Lengths that gave different engines while all of a process's memory lay in one arena."""


def quantized(path: Path) -> Path:
    """A small convolutional net in symmetric int8."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 49, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    ).eval()
    images = np.random.default_rng(0).standard_normal((8, 1, 28, 28)).astype(np.float32)
    quantize_static(
        export_torch(net, SIGNATURE, {"image": images[:1]}),
        path,
        Reader(["image"], [{"image": images}]),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
    )
    return path


def engine(folder: Path, graph: Path, noise: int) -> bytes:
    """Build as lockstep builds it, in a process of its own, with an environment of another size."""
    folder.mkdir(parents=True)
    document = {
        "target_file": str(toolchain_file("tensorrt")),
        "options": {"compute_capabilities": [80, 89]},
        "precision": "int8",
        "signature": SIGNATURE.document(),
        "graph": str(graph),
        "artifact": "artifact",
        "twin": None,
        "batches": "batches",
    }
    (folder / "job.json").write_text(json.dumps(document))
    Jobs.for_this_machine().run(
        [sys.executable, "-I", "-B", str(WORKER), str(folder), "build"],
        folder=folder,
        limits=LimitsConfig(memory="resident", memory_gib=16),
        what="engine",
        env={"NOISE": "x" * noise},
    )
    return (folder / "artifact" / "model.engine").read_bytes()


def test_an_int8_engine_is_the_same_bytes_in_every_folder(tmp_path: Path) -> None:
    if why := probe("tensorrt")["build"]:
        pytest.skip("; ".join(why))
    libc = ctypes.CDLL(None)
    before = libc.personality(ADDR_NO_RANDOMIZE)
    if before == -1:
        pytest.skip("this system does not let a process turn address randomization off")
    libc.personality(before)
    graph = quantized(tmp_path / "graph.onnx")
    engines = {engine(tmp_path / place, graph, 700 * number) for number, place in enumerate(PLACES)}
    assert len(engines) == 1
