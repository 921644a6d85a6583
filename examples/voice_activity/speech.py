"""Builds labelled streams: recorded clips placed at known times in made noise.

Samples are float64 in -1…1 at 16 kHz; a label per sample is a bool array of the same length. No file is read here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

RATE, FRAME = 16_000, 512
STEP = RATE // 100
SPEECH_RMS = 10 ** (-26 / 20)
SPEECH_RANGE_DB = 30
"""From the loudest to the faintest of speech, as the Speech Intelligibility Index counts it (ANSI S3.5-1997)."""
NOISES, SNRS_DB = ("white", "pink", "babble"), (20, 15, 10, 5, 0)
BABBLE_VOICES = 24
LONGEST_CLIP_S = 3.0
STREAM_FRAMES = 25
"""0.8 s: every stream of the suite has as many frames, which gives the sharpest bounds over streams."""
BEFORE_S = (0.15, 0.4)
"""How far from the start of a stream its speech begins: the model starts from nothing and has to hear the noise first."""
LAST_WORDS_S = 0.3
COMPARED_S = 0.5
ONE_RECORDING = 0.8
"""Two clips whose starts or ends correlate by more are of one recording: copies reach 0.99, words that are alike 0.65."""
QUIET = ("quiet", 40)
SUITE_SNRS_DB = (20, 10, 5, 0)
CONDITIONS = (*product(NOISES, SUITE_SNRS_DB), *[QUIET] * len(SUITE_SNRS_DB))
"""Noise and its distance in dB, met in turn: the three noises and the quiet room equally often."""


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: whole frames int16 [n, 512], labels int64 [n], and what the slices are named by."""

    group: str
    source: str
    language: str
    noise: str
    snr_db: str
    audio: np.ndarray
    labels: np.ndarray


def cut_frames(samples: np.ndarray, speech: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int16 frames [n, 512] and a label each: 1 where at least half of the frame's samples are speech."""
    n = len(samples) // FRAME
    frames = np.round(samples[: n * FRAME] * 32767).clip(-32768, 32767).astype(np.int16).reshape(n, FRAME)
    return frames, (speech[: n * FRAME].reshape(n, FRAME).mean(axis=1) >= 0.5).astype(np.int64)


def find_speech(clip: np.ndarray) -> np.ndarray:
    """Which samples of a quiet recording are speech: level of 10 ms above the middle (in dB) of its quiet and its loud,
    and no more than `SPEECH_RANGE_DB` below the loud.

    Pauses under 0.2 s belong to the speech around them. Made from the clip alone, so no model has a say in it.
    """
    level = 20 * np.log10(np.sqrt((clip[: len(clip) // STEP * STEP].reshape(-1, STEP) ** 2).mean(axis=1)) + 1e-6)
    quietest, loudest = np.percentile(level, [5, 95])
    loud = np.flatnonzero(level > max((quietest + loudest) / 2, loudest - SPEECH_RANGE_DB))
    speech = np.zeros(len(clip), bool)
    for start, after in zip(loud, [*loud[1:], -1], strict=True):
        end = after if 0 < after - start <= 20 else start + 1
        speech[start * STEP : end * STEP] = True
    return speech


def starts_and_ends(clip: np.ndarray) -> np.ndarray:
    """Spectra [2, bins] of the start and the end of a clip's speech, of unit power: what `share_audio` compares."""
    n, spoken = int(COMPARED_S * RATE), np.flatnonzero(find_speech(clip))
    pieces = [clip[spoken[0] :][:n], clip[: spoken[-1] + 1][-n:]]
    return np.stack([np.fft.rfft(piece / np.linalg.norm(piece), 2 * n) for piece in pieces])


def share_audio(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether a start or an end of one clip is one of the other's, wherever they lie on each other."""
    return bool(np.abs(np.fft.irfft(one[:, None] * other[None].conj())).max() > ONE_RECORDING)


def place(name: str, clip: np.ndarray, voices: list[np.ndarray], take: int, rng: np.random.Generator) -> Stream:
    """A stream of its own length: the clip with 0.3 to 1 s of noise before and after it; noise chosen by `take`."""
    noise, snr = NOISES[take % len(NOISES)], SNRS_DB[take % len(SNRS_DB)]
    longest = int(LONGEST_CLIP_S * RATE)
    speech = find_speech(clip)
    part = slice(0, longest) if take % 2 == 0 else slice(-longest, None)
    clip, speech = clip[part], speech[part]
    before, after = (int(rng.uniform(low, high) * RATE) for low, high in ((0.4, 1.0), (0.3, 0.7)))
    audio, labels = mix(np.pad(fade(clip), (before, after)), np.pad(speech, (before, after)), noise, snr, voices, rng)
    return Stream(f"{name}.{noise}-{snr:02d}dB", name.split("-")[0], "en", noise, f"{snr:02d}", audio, labels)


def cut(clip: np.ndarray, ends: bool, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """`STREAM_FRAMES` of a clip and which samples are speech: `BEFORE_S` before it the clip's start, or its last
    `LAST_WORDS_S` and what follows. Where the clip has no more, there is nothing."""
    n, speech = STREAM_FRAMES * FRAME, find_speech(clip)
    spoken, before = np.flatnonzero(speech), int(rng.uniform(*BEFORE_S) * RATE)
    first = max(int(spoken[0]), int(spoken[-1]) + 1 - int(LAST_WORDS_S * RATE)) if ends else int(spoken[0])
    start = first - before
    taken = slice(first if ends else max(start, 0), min(start + n, len(clip)))
    around = (taken.start - start, start + n - taken.stop)
    return np.pad(fade(clip[taken]), around), np.pad(speech[taken], around)


def mix(
    clip: np.ndarray, speech: np.ndarray, noise: str, snr: int, voices: Sequence[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Frames and labels of a clip whose speech is brought to -26 dB of full scale, in noise `snr` dB below that."""
    made = make_noise(noise, len(clip), voices, rng) * 10 ** (-snr / 20)
    return cut_frames((clip / rms(clip[speech]) + made) * SPEECH_RMS, speech)


def fade(clip: np.ndarray) -> np.ndarray:
    """The clip, in and out over 10 ms."""
    return clip * np.clip(np.minimum(np.arange(len(clip)), np.arange(len(clip))[::-1]) / STEP, 0, 1)


def make_noise(kind: str, n: int, voices: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Noise [n] of unit power: white, babble (many voices at once, played backwards), or pink (power falling as 1/f), of
    which the noise of a quiet room is made too."""
    if kind == "babble":
        crowd = [np.roll(np.resize(voices[i % len(voices)][::-1], n), rng.integers(n)) for i in range(BABBLE_VOICES)]
        noise = np.sum([voice / rms(voice) for voice in crowd], axis=0)
        return noise / rms(noise)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    if kind != "white":
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, n)
    return noise / rms(noise)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))
