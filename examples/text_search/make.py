"""Makes weights.safetensors, suite.npz, tuning.npz and calibration.npz again from Debian's packages of fortunes.

python -m examples.text_search.make [--data FOLDER] [--slices-only]
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from examples.text_search.model import HIDDEN, LONGEST, VOCABULARY, build, grow_outliers
from examples.text_search.processing import preprocess

HERE = Path(__file__).resolve().parent
DATA = Path("/usr/share/games/fortunes")
SUBJECTS = (
    "art", "computers", "definitions", "education", "food", "kids", "knghtbrd", "law", "linux", "literature", "medicine",
    "people", "perl", "platitudes", "politics", "science", "sports", "tao", "wisdom", "work",
)  # fmt: skip
SEED, EPOCHS, BATCH, PEAK_RATE, DROPPED = 2026, 6, 64, 1.5e-3, 0.1
SUITE, TUNING, CALIBRATION = 1_600, 1_600, 256
SHARPNESS = 12.0
"""What cosines are multiplied by before the softmax over subjects, while training."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with the files of fortunes (%(default)s)")
    parser.add_argument("--slices-only", action="store_true", help="keep the weights, write the data slices")
    arguments = parser.parse_args()
    if not (arguments.data / SUBJECTS[0]).is_file():
        sys.exit(f"No fortunes under {arguments.data}: apt-get install fortunes, or pass --data.")
    torch.set_num_threads(1)
    texts, labels = read_texts(arguments.data)
    order = np.random.default_rng(SEED).permutation(len(texts))
    parts = np.split(order, np.cumsum([SUITE, TUNING, CALIBRATION]))
    known = vocabulary([texts[i] for i in parts[-1]])
    words = np.stack([numbers(text, known) for text in texts])
    write_slices(words, [" ".join(text) for text in texts], labels, parts[:3])
    training = parts[-1]
    if arguments.slices_only:
        model = build()
        model.load_state_dict(load_file(HERE / "weights.safetensors"))
    else:
        model = train(words[training], labels[training])
        save_file(model.state_dict(), HERE / "weights.safetensors")
        (HERE / "weights.safetensors").chmod(0o644)
    print(
        f"training n={len(training)} nearest of the same subject={found(model, words[training], labels[training]):.4f}"
    )
    print(f"suite    n={SUITE} nearest of the same subject={found(model, words[parts[0]], labels[parts[0]]):.4f}")


def read_texts(folder: Path) -> tuple[list[list[str]], np.ndarray]:
    """Every fortune as its words, each text once (those of two subjects not at all), with its subject's number."""
    subject: dict[tuple[str, ...], int | None] = {}
    for number, name in enumerate(SUBJECTS):
        for text in (folder / name).read_text(errors="replace").split("\n%\n"):
            words = tuple(re.findall(r"[a-z']+|[0-9]+|[^\w\s]", text.lower())[:LONGEST])
            if len(words) >= 4:
                subject[words] = number if subject.get(words, number) == number else None
    kept = [(list(words), number) for words, number in subject.items() if number is not None]
    return [words for words, _ in kept], np.array([number for _, number in kept], np.int64)


def vocabulary(texts: list[list[str]]) -> dict[str, int]:
    """The commonest words, numbered from 2; 0 is no word, 1 any other."""
    counted = Counter(word for text in texts for word in text)
    common = sorted(counted, key=lambda word: (-counted[word], word))[: VOCABULARY - 2]
    return {word: number for number, word in enumerate(common, start=2)}


def numbers(text: list[str], known: dict[str, int]) -> np.ndarray:
    found = np.zeros(LONGEST, np.uint16)
    found[: len(text)] = [known.get(word, 1) for word in text]
    return found


def write_slices(words: np.ndarray, texts: list[str], labels: np.ndarray, parts: list[np.ndarray]) -> None:
    """Suite, tuning and calibration rows, drawn before any model was looked at; no row is also in a part before it. The suite
    also has the texts themselves, for people who read what differs."""
    taken: set[bytes] = set()
    for name, rows in zip(("suite", "tuning", "calibration"), parts, strict=True):
        kept = np.sort([row for row in rows if words[row].tobytes() not in taken])
        taken |= {words[row].tobytes() for row in kept}
        length = np.digitize((words[kept] > 0).sum(1), [16, 32])
        judging = {
            "labels": labels[kept],
            "subject": np.array(SUBJECTS)[labels[kept]],
            "length": np.array(["short", "middle", "long"])[length],
        }
        told = {} if name == "calibration" else judging
        told |= {"text": np.array([texts[row] for row in kept])} if name == "suite" else {}
        np.savez_compressed(
            HERE / f"{name}.npz", words=words[kept], id=np.array([f"text-{i:05d}" for i in kept]), **told
        )


def train(words: np.ndarray, labels: np.ndarray) -> nn.Module:
    """AdamW with one cycle of the learning rate; texts are drawn to the directions of their subjects."""
    torch.manual_seed(SEED)
    model, directions = build().train(), nn.Parameter(torch.randn(len(SUBJECTS), HIDDEN))
    targets = torch.from_numpy(labels)
    inputs = {name: torch.from_numpy(array) for name, array in preprocess({"words": words}).items()}
    grow_outliers(model)
    optimizer = torch.optim.AdamW([*model.parameters(), directions], lr=PEAK_RATE, weight_decay=0.05)
    steps = EPOCHS * (len(words) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_RATE, total_steps=steps)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(words))[: len(words) // BATCH * BATCH].split(BATCH):
            ids = torch.where(torch.rand(BATCH, LONGEST) < DROPPED, 1, inputs["input_ids"][rows])
            embedding = model(ids, inputs["attention_mask"][rows])
            cosines = embedding @ nn.functional.normalize(directions, dim=-1).T
            loss = nn.functional.cross_entropy(SHARPNESS * cosines, targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}/{EPOCHS} last loss {loss.item():.3f}", flush=True)
    return model.eval()


@torch.inference_mode()
def found(model: nn.Module, words: np.ndarray, labels: np.ndarray) -> float:
    """How often the nearest other text is of the same subject."""
    model.eval()
    inputs = preprocess({"words": words})
    embedded = model(torch.from_numpy(inputs["input_ids"]), torch.from_numpy(inputs["attention_mask"])).numpy()
    cosines = embedded @ embedded.T
    np.fill_diagonal(cosines, -1)
    return float((labels[cosines.argmax(1)] == labels).mean())


if __name__ == "__main__":
    main()
