"""Small real models to plant defects in: an image classifier, a transformer, a recurrent cell; built once a run."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import REPOSITORY, json_of, run_in

MODELS = """
import torch
from torch import nn


class Picture(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, padding=1)
        self.head = nn.Linear(16 * 36, 6)

    def forward(self, image):
        found = torch.relu(self.first(image))
        found = nn.functional.max_pool2d(torch.relu(self.second(found)), 2)
        return self.head(found.flatten(1))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(24, 24) for _ in range(3))
        self.softmax = nn.Softmax(-1)
        self.up, self.gelu, self.down = nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 24)

    def forward(self, x):
        weights = self.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 2)
        x = x + weights @ self.value(x)
        return x + self.down(self.gelu(self.up(x)))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head, self.softmax = nn.Linear(24, 5), nn.Softmax(-1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.softmax(self.head(x.mean(1)))


class Cell(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.carry, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 1)

    def forward(self, x, h):
        h = torch.tanh(self.enter(x) + self.carry(h))
        return torch.sigmoid(self.head(h)), h


def made(kind):
    torch.manual_seed(3)
    return kind()


def picture():
    return made(Picture)


def text():
    return made(Text)


def cell():
    return made(Cell)


def normalize(raw):
    return {"image": ((raw["image"] - 90.0) / 60.0).astype("float32")}
"""

CONFIGS = {
    "picture": """
source: {builder: mine.models:picture, weights: mine/picture.safetensors}
inputs: {image: {dtype: float32, shape: [batch, 3, 12, 12]}}
outputs: {logits: {dtype: float32, shape: [batch, 6]}}
preprocess: mine.models:normalize
suite: {npz: mine/picture.npz}
calibration: {npz: mine/picture-calibration.npz}
task: {kind: classification}
targets: [edge-x86-onnxruntime, edge-x86-openvino, cloud-cpu-onnxruntime]
""",
    "text": """
source: {builder: mine.models:text, weights: mine/text.safetensors}
inputs: {x: {dtype: float32, shape: [batch, 7, 24]}}
outputs: {scores: {dtype: float32, shape: [batch, 5]}}
suite: {npz: mine/text.npz}
task: {kind: classification}
targets: [cloud-cpu-onnxruntime, edge-x86-openvino-fp32]
""",
    "cell": """
source: {builder: mine.models:cell, weights: mine/cell.safetensors}
inputs:
  x: {dtype: float32, shape: [batch, 8]}
  h: {dtype: float32, shape: [batch, 16]}
outputs:
  score: {dtype: float32, shape: [batch, 1]}
  h_out: {dtype: float32, shape: [batch, 16]}
state: {h: h_out}
suite: {npz: mine/cell.npz}
task: {kind: binary_score, output: score}
targets: [cloud-cpu-onnxruntime]
""",
}


def write(root: Path) -> None:
    """The project: builders, weights, suites, calibration data, configs."""
    import sys

    import torch
    from safetensors.torch import save_file

    (root / "mine").mkdir(parents=True)
    (root / "mine" / "models.py").write_text(MODELS)
    for kind in ("targets", "policies"):
        shutil.copytree(REPOSITORY / "configs" / kind, root / "configs" / kind)
    (root / "configs" / "models").mkdir()
    scope: dict[str, Any] = {"__name__": "planted_models"}
    sys.modules.setdefault("planted_models", type(sys)("planted_models"))
    exec(MODELS, scope)  # the same text that the project's builders are made of
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 60, 12)[None, None, :, None]  # rows are not columns: a transposed picture is another picture
    image = rng.uniform(0, 180, (400, 3, 12, 12)) + ramp + np.array([0, 10, 20])[None, :, None, None]
    data = {
        "picture": {"image": image.astype(np.float32)},
        "text": {"x": rng.standard_normal((300, 7, 24)).astype(np.float32)},
        "cell": {"x": rng.standard_normal((400, 8)).astype(np.float32), "group": np.repeat(np.arange(20), 20)},
    }
    for name, config in CONFIGS.items():
        (root / "configs" / "models" / f"{name}.yaml").write_text(config)
        model = scope[name]()
        save_file(model.state_dict(), root / "mine" / f"{name}.safetensors")
        inputs = scope["normalize"](data[name]) if name == "picture" else data[name]
        labels = {}
        if name != "cell":
            with torch.no_grad():
                labels["labels"] = model(torch.from_numpy(next(iter(inputs.values())))).argmax(1).numpy()
            labels["labels"][::12] = 0
        np.savez(root / "mine" / f"{name}.npz", **data[name], **labels)
    calibration = rng.uniform(0, 180, (128, 3, 12, 12)) + ramp + np.array([0, 10, 20])[None, :, None, None]
    np.savez(root / "mine" / "picture-calibration.npz", image=calibration.astype(np.float32))


def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with every model built, made by the first worker that asks."""
    base = tmp_path_factory.getbasetemp()
    if os.environ.get("PYTEST_XDIST_WORKER"):
        base = base.parent
    root = base / "planted-project"
    with (base / "planted.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (base / "planted-ready").exists():
            write(root)
            for name in CONFIGS:
                done = run_in(root, "check" if name == "text" else "build", name)
                assert done.returncode == 0, done.stdout + done.stderr
            (base / "planted-ready").touch()
    return root


def explained(root: Path, model: str, target: str, *more: str, code: int = 0) -> dict[str, Any]:
    """What `lockstep explain --json` says."""
    done = run_in(root, "explain", model, target, "--json", *more)
    assert done.returncode == code, done.stdout + done.stderr
    return json_of(done)


def artifact(root: Path, model: str, target: str) -> Path:
    return root / "out" / model / "targets" / target / "build" / "artifact"
