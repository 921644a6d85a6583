"""Builds labelled streams: recorded clips placed at known times in made noise, and a recording with its annotation.

Samples are float64 in -1…1 at 16 kHz; a label per sample is a bool array of the same length. No file is read here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

RATE, FRAME = 16_000, 512
STEP = RATE // 100
SPEECH_RMS = 10 ** (-26 / 20)
NOISES, SNRS_DB = ("white", "pink", "babble"), (20, 15, 10, 5, 0)
BABBLE_VOICES = 24
LONGEST_CLIP_S = 3.0


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: whole frames int16 [n, 512], labels int64 [n], and what the slices are named by."""

    group: str
    source: str
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
    """Which samples of a quiet recording are speech: level of 10 ms above the middle (in dB) of its quiet and its loud.

    Pauses under 0.2 s belong to the speech around them. Made from the clip alone, so no model has a say in it.
    """
    level = 20 * np.log10(np.sqrt((clip[: len(clip) // STEP * STEP].reshape(-1, STEP) ** 2).mean(axis=1)) + 1e-6)
    loud = np.flatnonzero(level > np.percentile(level, [5, 95]).mean())
    speech = np.zeros(len(clip), bool)
    for start, after in zip(loud, [*loud[1:], -1], strict=True):
        end = after if 0 < after - start <= 20 else start + 1
        speech[start * STEP : end * STEP] = True
    return speech


def place(name: str, clip: np.ndarray, voices: list[np.ndarray], take: int, rng: np.random.Generator) -> Stream:
    """The clip at -26 dB of full scale in a noise chosen by `take`, which also picks the part of a long clip."""
    noise, snr = NOISES[take % len(NOISES)], SNRS_DB[take % len(SNRS_DB)]
    longest = int(LONGEST_CLIP_S * RATE)
    speech = find_speech(clip)
    part = slice(0, longest) if take % 2 == 0 else slice(-longest, None)
    clip, speech = clip[part], speech[part]
    before, after = (int(rng.uniform(low, high) * RATE) for low, high in ((0.4, 1.0), (0.3, 0.7)))
    fade = np.clip(np.minimum(np.arange(len(clip)), np.arange(len(clip))[::-1]) / STEP, 0, 1)
    quiet = np.pad(clip * fade * SPEECH_RMS / rms(clip[speech]), (before, after))
    mixed = quiet + make_noise(noise, len(quiet), voices, rng) * SPEECH_RMS * 10 ** (-snr / 20)
    audio, labels = cut_frames(mixed, np.pad(speech, (before, after)))
    return Stream(f"{name}.{noise}-{snr:02d}dB", name.split("-")[0], noise, f"{snr:02d}", audio, labels)


def make_noise(kind: str, n: int, voices: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Noise [n] of unit power: white, pink (power falling as 1/f), or babble: many voices at once, played backwards."""
    if kind == "babble":
        crowd = [np.roll(np.resize(voices[i % len(voices)][::-1], n), rng.integers(n)) for i in range(BABBLE_VOICES)]
        noise = np.sum([voice / rms(voice) for voice in crowd], axis=0)
        return noise / rms(noise)
    spectrum = np.fft.rfft(rng.standard_normal(n))
    if kind == "pink":
        spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    noise = np.fft.irfft(spectrum, n)
    return noise / rms(noise)


def rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples**2)))
