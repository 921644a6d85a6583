"""The pool of the self-test: 1,650 streams made as the suite's are, of prompts that the suite did not take.

No recording is in two streams, and none shares audio with one of the suite. Babble is made of prompts that are no stream
here or there, each heard more than once. As babble, backwards and one of 24, the suite heard most of these prompts too.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from examples.voice_activity.make import (
    PROMPTS,
    VOICE_SETS,
    Clip,
    choose,
    judged_columns,
    make_stream,
    read_prompts,
)
from examples.voice_activity.speech import find_speech

HERE = Path(__file__).resolve().parent
POOL_SEED = 2028
POOL_PROMPTS_EACH = 330


def pool() -> Iterator[dict[str, np.ndarray]]:
    """All streams in one batch, as `suite.npz` holds its own."""
    missing = [name for name in VOICE_SETS if not (PROMPTS / name).is_dir()]
    if missing:
        packages = "apt-get install asterisk-core-sounds-{en,es,fr,it,ru}-g722"
        raise FileNotFoundError(f"{PROMPTS / missing[0]}: no prompts there: {packages}")
    if find_spec("av") is None:
        raise ModuleNotFoundError("no decoder of G.722: pip install av==18.1.0")
    rng = np.random.default_rng(POOL_SEED)
    judged = recordings_of_the_suite()
    taken: list[Clip] = []
    left: list[np.ndarray] = []
    for voice, language in VOICE_SETS.items():
        found = read_prompts(PROMPTS, voice, language)
        beside = [clip for clip in found if clip.name in judged]
        others = [found[i] for i in rng.permutation(len(found)) if found[i].name not in judged]
        chosen = choose(others, POOL_PROMPTS_EACH, beside)
        names = {clip.name for clip in chosen}
        taken += chosen
        left += [clip.samples[find_speech(clip.samples)] for clip in others if clip.name not in names]
    voices = crowd(left, rng)
    yield judged_columns([make_stream(clip, turn, voices, rng) for turn, clip in enumerate(taken)])


def recordings_of_the_suite() -> set[str]:
    """Names of its clips: a stream is called after its clip and the condition it is heard in."""
    with np.load(HERE / "suite.npz") as suite:
        return {group.rpartition(".")[0] for group in np.unique(suite["group"]).tolist()}


def crowd(voices: list[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The voices one after another, in another order each time round."""
    while True:
        yield from (voices[i] for i in rng.permutation(len(voices)))
