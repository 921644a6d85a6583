"""Makes weights.safetensors, suite.npz, calibration.npz and golden.npz again from Silero's package and real speech.

python -m examples.voice_activity.make [--silero silero_vad.jit] [--sample sample.wav] [--clips FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import wave
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from examples.voice_activity.model import CONTEXT, HIDDEN, build
from examples.voice_activity.processing import THRESHOLD, preprocess
from examples.voice_activity.speech import FRAME, RATE, Stream, cut_frames, place

HERE = Path(__file__).resolve().parent
SEED = 2026
CLIPS = Path("/usr/share/pocketsphinx/test/data")
LIBRIVOX = "librivox/sense_and_sensibility_01_austen_64kb"
SUITE_CLIPS = {
    "cards-001": "cards/001.wav",
    "cards-002": "cards/002.wav",
    "cards-005": "cards/005.wav",
    "commands-goforward": "goforward.raw",
    "commands-numbers": "numbers.raw",
    "digits-2934z": "tidigits/dhd.2934z.raw",
    "librivox-0870": f"{LIBRIVOX}-0870.wav",
    "librivox-0880": f"{LIBRIVOX}-0880.wav",
    "librivox-0890": f"{LIBRIVOX}-0890.wav",
    "librivox-0920": f"{LIBRIVOX}-0920.wav",
}
CALIBRATION_CLIPS = {
    "cards-003": "cards/003.wav",
    "cards-004": "cards/004.wav",
    "commands-something": "something.raw",
    "librivox-0930": f"{LIBRIVOX}-0930.wav",
}
SAMPLE_STREAMS, SAMPLE_STREAM_FRAMES = 6, 156
# Silero's name of each layer → ours.
LAYERS = {
    "stft.forward_basis_buffer": "stft_conv.weight",
    "encoder.0.reparam_conv": "conv1",
    "encoder.1.reparam_conv": "conv2",
    "encoder.2.reparam_conv": "conv3",
    "encoder.3.reparam_conv": "conv4",
    "decoder.rnn": "lstm_cell",
    "decoder.decoder.2": "final_conv",
}


def main() -> None:
    silero, sample, clips = read_arguments()
    torch.set_num_threads(1)
    original = torch.jit.load(silero)
    model = build().eval()
    model.load_state_dict(rename(original.state_dict()))
    save_file(model.state_dict(), HERE / "weights.safetensors")
    (HERE / "weights.safetensors").chmod(0o644)

    rng = np.random.default_rng(SEED)
    suite = cut_sample(sample) + place_clips(clips, SUITE_CLIPS, 2, rng)
    calibration = place_clips(clips, CALIBRATION_CLIPS, 1, rng)
    write_slices(suite, calibration)
    golden = np.concatenate([run_original(original, stream.audio) for stream in suite])
    np.savez_compressed(HERE / "golden.npz", probability=golden)
    report(suite, golden, np.concatenate([run(model, stream.audio) for stream in suite]))


def read_arguments() -> tuple[Path, Path, Path]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--silero", type=Path, default=find("silero-vad", "silero_vad/data/silero_vad.jit"))
    parser.add_argument("--sample", type=Path, default=find("pyannote-audio", "pyannote/audio/sample/sample.wav"))
    parser.add_argument("--clips", type=Path, default=CLIPS)
    found = parser.parse_args()
    if not (found.silero and found.silero.is_file()):
        sys.exit("No silero_vad.jit: pip install --no-deps silero-vad==6.2.3, or pass --silero.")
    if not (found.sample and found.sample.is_file()):
        sys.exit("No sample.wav: pip install --no-deps pyannote-audio==4.0.7, or pass --sample.")
    if not (found.clips / "goforward.raw").is_file():
        sys.exit(f"No speech under {found.clips}: apt-get install pocketsphinx-testdata, or pass --clips.")
    return found.silero, found.sample, found.clips


def find(package: str, file: str) -> Path | None:
    """Where an installed package keeps a file; the package itself is not imported."""
    try:
        return Path(str(distribution(package).locate_file(file)))
    except PackageNotFoundError:
        return None


def rename(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """The 16 kHz half of Silero's weights, under our names.

    From the TorchScript file, which the package runs; its `silero_vad_16k.safetensors` holds other weights, whose
    answers differ by up to 0.7.
    """
    ours: dict[str, Tensor] = {}
    for theirs, name in LAYERS.items():
        found = {key: value for key, value in original.items() if key.startswith(f"_model.{theirs}")}
        ours |= {key.replace(f"_model.{theirs}", name): value.contiguous() for key, value in found.items()}
    return ours


def cut_sample(wav: Path) -> list[Stream]:
    """The annotated recording in six streams of five seconds, one after the other, as recorded."""
    samples, speech = read_samples(wav), np.zeros(60 * RATE, bool)
    for line in wav.with_suffix(".rttm").read_text().splitlines():
        start_s, duration_s = map(float, line.split()[3:5])
        speech[round(start_s * RATE) : round((start_s + duration_s) * RATE)] = True
    length = SAMPLE_STREAM_FRAMES * FRAME
    return [
        Stream(f"telephone-{i}", "telephone", "recorded", "recorded", *cut_frames(samples[part], speech[part]))
        for i, part in enumerate(slice(i * length, (i + 1) * length) for i in range(SAMPLE_STREAMS))
    ]


def place_clips(folder: Path, clips: dict[str, str], takes: int, rng: np.random.Generator) -> list[Stream]:
    """Each clip `takes` times, in another noise each time; babble is made of these clips alone."""
    voices = {name: read_samples(folder / file) for name, file in clips.items()}
    every = [(name, clip) for name, clip in voices.items() for _ in range(takes)]
    return [place(name, clip, list(voices.values()), take, rng) for take, (name, clip) in enumerate(every)]


def read_samples(file: Path) -> np.ndarray:
    """Samples in -1…1 of a 16 kHz mono file of 16 bits, with a wav header or without."""
    if file.suffix == ".raw":
        return np.fromfile(file, "<i2") / 32768
    with wave.open(str(file)) as recording:
        if (recording.getframerate(), recording.getnchannels(), recording.getsampwidth()) != (RATE, 1, 2):
            sys.exit(f"{file}: expected 16 kHz, one channel, 16 bits; found {recording.getparams()}.")
        return np.frombuffer(recording.readframes(recording.getnframes()), "<i2") / 32768


def write_slices(suite: list[Stream], calibration: list[Stream]) -> None:
    frames = [len(stream.labels) for stream in suite]
    np.savez_compressed(
        HERE / "suite.npz",
        **columns(suite),
        labels=np.concatenate([stream.labels for stream in suite]),
        source=np.repeat([stream.source for stream in suite], frames),
        noise=np.repeat([stream.noise for stream in suite], frames),
        snr_db=np.repeat([stream.snr_db for stream in suite], frames),
    )
    np.savez_compressed(HERE / "calibration.npz", **columns(calibration))


def columns(streams: list[Stream]) -> dict[str, np.ndarray]:
    """What both slices hold; the rows of a stream stand together, in order of time."""
    return {
        "audio": np.concatenate([stream.audio for stream in streams]),
        "id": np.array([f"{stream.group}/{i:03d}" for stream in streams for i in range(len(stream.labels))]),
        "group": np.repeat([stream.group for stream in streams], [len(stream.labels) for stream in streams]),
    }


@torch.inference_mode()
def run_original(original: nn.Module, audio: np.ndarray) -> np.ndarray:
    """Silero's own answers [n] on one stream of int16 frames."""
    original.reset_states()
    frames = torch.from_numpy(preprocess({"audio": audio})["audio"])
    return np.array([original(frame[None], RATE).item() for frame in frames], np.float32)


@torch.inference_mode()
def run(model: nn.Module, audio: np.ndarray) -> np.ndarray:
    """Our answers [n] on one stream of int16 frames."""
    context, state, answers = torch.zeros(1, CONTEXT), torch.zeros(2, 1, HIDDEN), []
    for frame in torch.from_numpy(preprocess({"audio": audio})["audio"]):
        probability, context, state = model(frame[None], context, state)
        answers.append(probability.item())
    return np.array(answers, np.float32)


def report(suite: list[Stream], golden: np.ndarray, answers: np.ndarray) -> None:
    labels, said = np.concatenate([stream.labels for stream in suite]), answers >= THRESHOLD
    precision, recall = labels[said].mean(), said[labels == 1].mean()
    print(f"{len(suite)} streams, {len(labels)} frames, {labels.mean():.3f} of them speech")
    print(f"largest difference from the original {np.abs(answers - golden).max():.1e}")
    print(f"at {THRESHOLD}: accuracy={(said == labels).mean():.4f} F1={2 / (1 / precision + 1 / recall):.4f}", end=" ")
    print(f"precision={precision:.4f} recall={recall:.4f}")


if __name__ == "__main__":
    main()
