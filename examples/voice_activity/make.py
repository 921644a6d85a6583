"""Makes weights.safetensors, suite.npz, calibration.npz and golden.npz again from Silero's package and real speech.

python -m examples.voice_activity.make [--silero silero_vad.jit] [--clips FOLDER] [--prompts FOLDER]
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from examples.voice_activity.model import CONTEXT, HIDDEN, build
from examples.voice_activity.processing import THRESHOLD, preprocess
from examples.voice_activity.speech import (
    BABBLE_VOICES,
    CONDITIONS,
    RATE,
    Stream,
    cut,
    find_speech,
    mix,
    place,
    share_audio,
    starts_and_ends,
)

HERE = Path(__file__).resolve().parent
SUITE_SEED, CALIBRATION_SEED = 2026, 2027
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
PROMPTS = Path("/usr/share/asterisk/sounds")
# The voice sets and their languages; es_MX and en_US are one speaker.
VOICE_SETS = {
    "en_US_f_Allison": "en",
    "es_MX_f_Allison": "es",
    "fr_CA_f_June": "fr",
    "it_IT_m_Carlo": "it",
    "ru_RU_f_IvrvoiceRU": "ru",
}
PROMPTS_EACH = 64
# Tones, silences and a monkey.
NOT_SPEECH = {
    "beep",
    "beeperr",
    "ascending-2tone",
    "descending-2tone",
    "confbridge-join",
    "confbridge-leave",
    "tt-monkeys",
}
LEAST_SPEECH_S = 0.3
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
    silero, clips, prompts = read_arguments()
    torch.set_num_threads(1)
    original = torch.jit.load(silero)
    model = build().eval()
    model.load_state_dict(rename(original.state_dict()))
    save_file(model.state_dict(), HERE / "weights.safetensors")
    (HERE / "weights.safetensors").chmod(0o644)

    suite = make_suite(clips, prompts)
    calibration = place_clips(clips, CALIBRATION_CLIPS)
    write_slices(suite, calibration)
    golden = np.concatenate([run_original(original, stream.audio) for stream in suite])
    np.savez_compressed(HERE / "golden.npz", probability=golden)
    report(suite, golden, np.concatenate([run(model, stream.audio) for stream in suite]))


def read_arguments() -> tuple[Path, Path, Path]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--silero", type=Path, default=find("silero-vad", "silero_vad/data/silero_vad.jit"))
    parser.add_argument("--clips", type=Path, default=CLIPS)
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    found = parser.parse_args()
    if not (found.silero and found.silero.is_file()):
        sys.exit("No silero_vad.jit: pip install --no-deps silero-vad==6.2.3, or pass --silero.")
    if not (found.clips / "goforward.raw").is_file():
        sys.exit(f"No speech under {found.clips}: apt-get install pocketsphinx-testdata, or pass --clips.")
    missing = [name for name in VOICE_SETS if not (found.prompts / name).is_dir()]
    if missing:
        sys.exit(f"No {missing[0]} under {found.prompts}: see README.md for the packages, or pass --prompts.")
    return found.silero, found.clips, found.prompts


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


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One recording, as it was made."""

    name: str
    source: str
    language: str
    samples: np.ndarray


def make_suite(clips: Path, prompts: Path) -> list[Stream]:
    """One stream of each of the clips and of `PROMPTS_EACH` prompts of each voice set; the other prompts are the babble.

    No recording is heard twice: not in two streams, and not in the babble of two.
    """
    rng = np.random.default_rng(SUITE_SEED)
    taken, left = [], []
    for voice, language in VOICE_SETS.items():
        found = read_prompts(prompts, voice, language)
        shuffled = [found[i] for i in rng.permutation(len(found))]
        chosen = choose(shuffled)
        taken += chosen
        left += [clip.samples for clip in shuffled[shuffled.index(chosen[-1]) + 1 :]]
    taken += [Clip(name, name.split("-")[0], "en", read_samples(clips / file)) for name, file in SUITE_CLIPS.items()]
    crowd = (left[i][find_speech(left[i])] for i in rng.permutation(len(left)))
    return [make_stream(clip, turn, crowd, rng) for turn, clip in enumerate(taken)]


def choose(clips: list[Clip]) -> list[Clip]:
    """The first `PROMPTS_EACH` that share no audio: some prompts are put together from the same recordings."""
    chosen: list[tuple[Clip, np.ndarray]] = []
    for clip in clips:
        heard = starts_and_ends(clip.samples)
        if not any(share_audio(heard, other) for _, other in chosen):
            chosen.append((clip, heard))
        if len(chosen) == PROMPTS_EACH:
            break
    return [clip for clip, _ in chosen]


def make_stream(clip: Clip, turn: int, crowd: Iterator[np.ndarray], rng: np.random.Generator) -> Stream:
    """One recording in the condition whose turn it is; each time that comes round, now the start, now the end of it."""
    noise, snr = CONDITIONS[turn % len(CONDITIONS)]
    ends = turn // len(CONDITIONS) % 2 == 1
    voices = [next(crowd) for _ in range(BABBLE_VOICES)] if noise == "babble" else []
    audio, labels = mix(*cut(clip.samples, ends, rng), noise, snr, voices, rng)
    group = f"{clip.name}.{noise}-{snr:02d}dB"
    return Stream(group, clip.source, clip.language, noise, f"{snr:02d}", audio, labels)


def read_prompts(folder: Path, voice: str, language: str) -> list[Clip]:
    """Every spoken prompt of a voice set, by name."""
    files = [file for file in sorted((folder / voice).rglob("*.g722")) if file.parent.name != "silence"]
    names = [file.relative_to(folder).with_suffix("").as_posix() for file in files]
    clips = [
        Clip(name, voice, language, read_g722(file))
        for name, file in zip(names, files, strict=True)
        if file.stem not in NOT_SPEECH and file.stat().st_size
    ]
    return [clip for clip in clips if find_speech(clip.samples).sum() >= LEAST_SPEECH_S * RATE]


def read_g722(file: Path) -> np.ndarray:
    """Samples in -1…1 of a file of bare G.722, which is 16 kHz; decoded by FFmpeg."""
    import av

    with av.open(str(file), format="g722") as recording:
        return np.concatenate([frame.to_ndarray()[0] for frame in recording.decode(audio=0)]) / 32768


def place_clips(folder: Path, clips: dict[str, str]) -> list[Stream]:
    """Each clip as a stream of its own length, in another noise each; babble is made of these clips alone."""
    rng = np.random.default_rng(CALIBRATION_SEED)
    voices = {name: read_samples(folder / file) for name, file in clips.items()}
    return [place(name, clip, [*voices.values()], take, rng) for take, (name, clip) in enumerate(voices.items())]


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
        language=np.repeat([stream.language for stream in suite], frames),
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
