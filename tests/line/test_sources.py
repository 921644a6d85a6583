"""Every kind of source that a config may name goes down the whole line, as a user would send it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY, json_of, run_in
from tests.line.recognizer import write_ocr

pytestmark = pytest.mark.filterwarnings("default")  # torch's exporter warns about its own internals


def new_project(root: Path, name: str, config: str) -> Path:
    """A project with the shipped targets and policies, one model's config, and an empty package for its code."""
    (root / "configs" / "models").mkdir(parents=True)
    for kind in ("targets", "policies"):
        shutil.copytree(REPOSITORY / "configs" / kind, root / "configs" / kind)
    (root / "configs" / "models" / f"{name}.yaml").write_text(config)
    (root / "mine").mkdir()
    return root


def statuses(root: Path, name: str) -> dict[str, str]:
    done = run_in(root, "check", name, "--json")
    assert done.stdout, done.stderr
    document = json_of(done)
    assert "targets" in document, document
    return {t["target"]: t["status"] + (t["error"] or "") for t in document["targets"]}


ENCODER = '''
import torch
from torch import nn


class Encoder(nn.Module):
    """Token and position tables, two pre-norm blocks, mean over the unmasked tokens."""

    def __init__(self, vocabulary=500, width=64, longest=64):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(longest, width)
        self.blocks = nn.ModuleList(
            [nn.TransformerEncoderLayer(width, 4, 128, batch_first=True, norm_first=True, dropout=0.0) for _ in range(2)])
        self.head = nn.Linear(width, 5)

    def forward(self, input_ids, attention_mask):
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in self.blocks:
            x = block(x, src_key_padding_mask=attention_mask == 0)
        weights = attention_mask.to(x.dtype).unsqueeze(-1)
        return self.head((x * weights).sum(1) / weights.sum(1))


def build():
    torch.manual_seed(0)
    return Encoder()
'''

ENCODER_DATA = """
import numpy as np


def rows(seed, batches):
    rng = np.random.default_rng(seed)
    for number in range(batches):
        length = int(rng.integers(5, 40))
        ids = rng.integers(0, 500, (32, length))
        mask = (np.arange(length) < rng.integers(3, length + 1, 32)[:, None]).astype(np.int64)
        yield {"input_ids": ids, "attention_mask": mask, "id": np.arange(32) + 32 * number,
               "length": np.full(32, length)}


def suite():
    return rows(1, 12)


def calibration():
    for batch in rows(2, 4):
        yield {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
"""


def test_transformer_with_two_int64_inputs_and_dynamic_length_from_functions_and_a_checkpoint(tmp_path: Path) -> None:
    import torch

    root = new_project(
        tmp_path / "p",
        "encoder",
        """
source: {builder: mine.model:build, weights: mine/weights.pt}
inputs:
  input_ids: {dtype: int64, shape: [batch, sequence]}
  attention_mask: {dtype: int64, shape: [batch, sequence]}
outputs:
  logits: {dtype: float32, shape: [batch, 5]}
axes:
  sequence: {least: 2, typical: 32, most: 64}
suite: {function: "mine.data:suite"}
calibration: {function: "mine.data:calibration"}
task: {kind: classification}
baseline: [cloud-cpu-onnxruntime]
targets: [cloud-cpu-onnxruntime, edge-x86-openvino-fp32, cloud-gpu-tensorrt-int8]
""",
    )
    (root / "mine" / "model.py").write_text(ENCODER)
    (root / "mine" / "data.py").write_text(ENCODER_DATA)
    scope: dict[str, Any] = {}
    exec(ENCODER, scope)
    torch.save(scope["build"]().state_dict(), root / "mine" / "weights.pt")
    found = statuses(root, "encoder")
    assert found == {
        "cloud-cpu-onnxruntime": "PASS",
        "edge-x86-openvino-fp32": "PASS",
        "cloud-gpu-tensorrt-int8": "DEFERRED",
    }

    (root / "mine" / "data.py").write_text(ENCODER_DATA.replace("rows(1, 12)", "rows(3, 12)"))
    why = json_of(run_in(root, "why", "encoder", "--json"))["would_run"]
    assert any("mine/data.py" in reason for reason in why["suite"])


OCR_DATA = '''
import numpy as np


def suite():
    rng = np.random.default_rng(5)
    for width in (32, 48, 64, 80, 100, 128):
        yield {"image": rng.standard_normal((40, 1, 32, width)).astype(np.float32)}


def answer(outputs):
    """Greedy CTC: best symbol per step, repeats merged, blanks (0) dropped, padded with -1."""
    best = outputs["symbols"].argmax(-1)
    found = np.full(best.shape, -1)
    for row, symbols in enumerate(best):
        kept = [s for i, s in enumerate(symbols) if s != 0 and (i == 0 or s != symbols[i - 1])]
        found[row, : len(kept)] = kept
    return found
'''


def test_recognizer_that_exists_only_as_onnx_with_dynamic_width(tmp_path: Path) -> None:
    """The file lies beside the project, where whoever trains it keeps it."""
    root = new_project(
        tmp_path / "p",
        "ocr",
        """
source: {onnx: TRAINED/ocr.onnx}
inputs:
  image: {dtype: float32, shape: [batch, 1, 32, width]}
outputs:
  symbols: {dtype: float32, shape: [batch, steps, 20]}
axes:
  width: {least: 16, typical: 64, most: 256}
  steps: {least: 4, typical: 16, most: 64}
suite: {function: "mine.data:suite"}
task: {kind: sequence, postprocess: "mine.data:answer"}
baseline: [cloud-cpu-onnxruntime]
targets: [cloud-cpu-onnxruntime, edge-x86-openvino-fp32]
""".replace("TRAINED", str(tmp_path)),
    )
    write_ocr(tmp_path / "ocr.onnx")
    (root / "mine" / "data.py").write_text(OCR_DATA)
    assert statuses(root, "ocr") == {"cloud-cpu-onnxruntime": "PASS", "edge-x86-openvino-fp32": "PASS"}


def test_classifier_with_int32_input_and_two_outputs(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    root = new_project(
        tmp_path / "p",
        "codes",
        """
source: {builder: mine.model:build, weights: mine/weights.safetensors}
inputs:
  codes: {dtype: int32, shape: [batch, 12]}
outputs:
  scores: {dtype: float32, shape: [batch, 3]}
  best: {dtype: int64, shape: [batch]}
suite: {npz: mine/suite.npz}
task: {kind: classification, output: scores}
baseline: [cloud-cpu-onnxruntime]
targets: [cloud-cpu-onnxruntime, edge-x86-openvino-fp32]
""",
    )
    code = """
import torch
from torch import nn


class Codes(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(50, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, codes):
        scores = self.head(self.table(codes).mean(1))
        return scores, scores.argmax(1)


def build():
    torch.manual_seed(1)
    return Codes()
"""
    (root / "mine" / "model.py").write_text(code)
    scope: dict[str, Any] = {}
    exec(code, scope)
    save_file(scope["build"]().state_dict(), root / "mine" / "weights.safetensors")
    codes = np.random.default_rng(0).integers(0, 50, (500, 12)).astype(np.int32)
    with torch.no_grad():
        labels = scope["build"]()(torch.from_numpy(codes))[1].numpy()
    np.savez(root / "mine" / "suite.npz", codes=codes, labels=labels)
    assert statuses(root, "codes") == {"cloud-cpu-onnxruntime": "PASS", "edge-x86-openvino-fp32": "PASS"}


MLFLOW_CONFIG = """
source: {{mlflow: "{uri}"{builder}}}
inputs:
  x: {{dtype: float32, shape: [batch, 16]}}
outputs:
  logits: {{dtype: float32, shape: [batch, 4]}}
suite: {{npz: tiny/suite.npz}}
task: {{kind: classification}}
baseline: [cloud-cpu-onnxruntime]
targets: [cloud-cpu-onnxruntime]
"""

LOG_MODELS = """
import sys
import mlflow, numpy as np, onnx, torch
sys.path.insert(0, ".")
from tiny.model import build
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("sources")
x = np.random.default_rng(0).standard_normal((4, 16)).astype("float32")
graph = onnx.load("out/tiny/graphs/float32/graph.onnx")
mlflow.onnx.log_model(graph, name="graph", registered_model_name="graph")
model = build().eval()
batch = torch.export.Dim("batch", min=1, max=64)
mlflow.pytorch.log_model(model, name="program", registered_model_name="program", input_example=x, serialization_format="pt2")
mlflow.pytorch.log_model(model, name="pickled", registered_model_name="pickled", serialization_format="pickle")
"""


@pytest.fixture(scope="module")
def logged(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose embedded registry also holds an ONNX model, a pt2 program and a pickle."""
    import subprocess
    import sys

    root = tmp_path_factory.mktemp("logged") / "project"
    shutil.copytree(built, root)
    uri = f"sqlite:///{root}/.lockstep/registry/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", LOG_MODELS, uri], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", ["graph", "program"])
def test_models_logged_to_mlflow_are_sources(logged: Path, name: str) -> None:
    config = MLFLOW_CONFIG.format(uri=f"models:/{name}/1", builder="")
    (logged / "configs" / "models" / f"from-{name}.yaml").write_text(config)
    assert statuses(logged, f"from-{name}") == {"cloud-cpu-onnxruntime": "PASS"}


def test_builder_with_the_weights_of_a_logged_program(logged: Path) -> None:
    config = MLFLOW_CONFIG.format(uri="models:/program/1", builder=", builder: tiny.model:build")
    (logged / "configs" / "models" / "from-weights.yaml").write_text(config)
    assert statuses(logged, "from-weights") == {"cloud-cpu-onnxruntime": "PASS"}


def test_pickled_mlflow_model_is_refused_unread(logged: Path) -> None:
    (logged / "configs" / "models" / "from-pickle.yaml").write_text(
        MLFLOW_CONFIG.format(uri="models:/pickled/1", builder="")
    )
    done = run_in(logged, "check", "from-pickle")
    assert done.returncode == 2
    assert "pickle" in done.stderr
    assert "serialization_format='pt2'" in done.stderr


def test_moving_mlflow_alias_is_refused(logged: Path) -> None:
    (logged / "configs" / "models" / "from-alias.yaml").write_text(
        MLFLOW_CONFIG.format(uri="models:/graph@production", builder="")
    )
    done = run_in(logged, "check", "from-alias")
    assert done.returncode == 2
    assert "which moves" in done.stderr
