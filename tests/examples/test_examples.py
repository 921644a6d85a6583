"""The shipped models are what their READMEs say: weights, slices, shapes, export, and the metric on the suite."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from torch import Tensor, nn

from examples.fashion_cnn import model as fashion_cnn
from examples.fashion_cnn import processing as fashion_processing
from examples.sensor_anomaly import model as sensor_anomaly
from examples.sensor_anomaly import processing as sensor_processing
from examples.text_search import model as text_search
from examples.text_search import processing as text_processing
from examples.voice_activity import model as voice_activity
from examples.voice_activity import pool as voice_pool
from examples.voice_activity import processing as voice_processing
from examples.voice_activity import speech

EXAMPLES = Path(fashion_cnn.__file__).parents[1]
BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "fashion_cnn": fashion_cnn.build,
    "voice_activity": voice_activity.build,
    "sensor_anomaly": sensor_anomaly.build,
    "text_search": text_search.build,
}
INPUT = {"fashion_cnn": "image", "voice_activity": "audio", "sensor_anomaly": "features", "text_search": "words"}
PARAMETERS = {"fashion_cnn": 257_322, "voice_activity": 309_633, "sensor_anomaly": 1_676, "text_search": 633_344}
names = pytest.mark.parametrize("name", BUILDERS)


def load_model(name: str) -> nn.Module:
    model = BUILDERS[name]()
    model.load_state_dict(load_file(EXAMPLES / name / "weights.safetensors"), strict=True)
    return model.eval()


def load_slice(name: str, which: str) -> dict[str, np.ndarray]:
    with np.load(EXAMPLES / name / f"{which}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def shared_rows(one: np.ndarray, other: np.ndarray) -> int:
    seen = {row.tobytes() for row in one}
    return sum(row.tobytes() in seen for row in other)


def example_inputs(name: str, batch: int) -> tuple[Tensor, ...]:
    """The first rows of the suite as the network takes them; a stream's context and state are not at zero."""
    rows = {INPUT[name]: load_slice(name, "suite")[INPUT[name]][-batch:]}
    if name == "fashion_cnn":
        return (torch.from_numpy(fashion_processing.preprocess(rows)["image"]),)
    if name == "sensor_anomaly":
        return (torch.from_numpy(rows["features"]),)
    if name == "text_search":
        return tuple(torch.from_numpy(array) for array in text_processing.preprocess(rows).values())
    audio = torch.from_numpy(voice_processing.preprocess(rows)["audio"])
    return audio, audio[:, :64].flip(1), torch.linspace(-1, 1, 2 * batch * 128).reshape(2, batch, 128)


Frame = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


@torch.inference_mode()
def run_streams(frame: Frame, suite: dict[str, np.ndarray], dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Probability of speech [n] in the suite's order; all streams advance together, in one batch."""
    audio = torch.from_numpy(voice_processing.preprocess(suite)["audio"]).to(dtype)
    rows = [torch.from_numpy(np.flatnonzero(suite["group"] == group)) for group in dict.fromkeys(suite["group"])]
    answers = torch.full((len(audio), 1), torch.nan, dtype=dtype)
    context, state = torch.zeros(len(rows), 64, dtype=dtype), torch.zeros(2, len(rows), 128, dtype=dtype)
    for step in range(max(map(len, rows))):
        now = torch.stack([stream[min(step, len(stream) - 1)] for stream in rows])
        live = torch.tensor([step < len(stream) for stream in rows])
        probability, context, state = frame(audio[now], context, state)
        answers[now[live]] = probability[live]
    return voice_processing.postprocess({"probability": answers.numpy()})


@pytest.fixture(scope="module")
def voice_answers() -> np.ndarray:
    return run_streams(load_model("voice_activity"), load_slice("voice_activity", "suite"))


@names
def test_weights_load_strictly_and_are_float32(name: str) -> None:
    model = load_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert all(value.isfinite().all() for value in model.state_dict().values())


@names
def test_weights_without_one_tensor_are_refused(name: str) -> None:
    weights = load_file(EXAMPLES / name / "weights.safetensors")
    weights.pop(next(key for key in weights if key.endswith(".weight")))
    with pytest.raises(RuntimeError, match="Missing key"):
        BUILDERS[name]().load_state_dict(weights, strict=True)


@pytest.mark.parametrize(
    ("name", "dtype", "row", "least"),
    [
        ("fashion_cnn", np.uint8, (28, 28), 2_000),
        ("voice_activity", np.int16, (512,), 8_000),
        ("sensor_anomaly", np.float32, (9,), 4_000),
        ("text_search", np.uint16, (48,), 1_500),
    ],
)
def test_slices_have_the_columns_and_shapes_of_the_readme(
    name: str, dtype: type[np.generic], row: tuple[int, ...], least: int
) -> None:
    suite, calibration = load_slice(name, "suite"), load_slice(name, "calibration")
    for arrays in (suite, calibration):
        inputs = arrays[INPUT[name]]
        assert (inputs.dtype, inputs.shape[1:]) == (np.dtype(dtype), row)
        assert {len(column) for column in arrays.values()} == {len(inputs)}
        assert len(np.unique(arrays["id"])) == len(inputs)
    assert len(suite["id"]) >= least
    assert suite["labels"].dtype == np.int64
    assert set(calibration) <= {INPUT[name], "id", "group"}


@names
def test_no_row_is_in_both_calibration_and_suite(name: str) -> None:
    suite, calibration = load_slice(name, "suite"), load_slice(name, "calibration")
    assert shared_rows(suite[INPUT[name]], calibration[INPUT[name]]) == 0
    assert not set(suite["id"]) & set(calibration["id"])


def test_one_planted_row_is_found() -> None:
    suite, calibration = (load_slice("sensor_anomaly", which)["features"] for which in ("suite", "calibration"))
    assert shared_rows(suite, np.concatenate([calibration, suite[7:8]])) == 1


def test_the_folders_together_are_below_16_mb() -> None:
    files = [file for name in BUILDERS for file in (EXAMPLES / name).iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 16_000_000


@names
def test_an_export_with_dynamic_batch_gives_what_the_module_gives(name: str) -> None:
    model, batch = load_model(name), torch.export.Dim("batch", min=1, max=64)
    shapes = tuple({1 if inputs.shape[0] != 4 else 0: batch} for inputs in example_inputs(name, 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        program = torch.export.export(model, example_inputs(name, 4), dynamic_shapes=shapes)
    for size in (1, 7):
        inputs = example_inputs(name, size)
        torch.testing.assert_close(program.module()(*inputs), model(*inputs), rtol=1e-5, atol=1e-6)


def test_fashion_cnn_reaches_its_accuracy() -> None:
    suite = load_slice("fashion_cnn", "suite")
    kept = suite["image"].copy()
    with torch.inference_mode():
        logits = load_model("fashion_cnn")(torch.from_numpy(fashion_processing.preprocess(suite)["image"]))
    assert logits.shape == (len(kept), 10)
    assert accuracy_score(suite["labels"], logits.argmax(1)) >= 0.905
    np.testing.assert_array_equal(suite["image"], kept)


def test_fashion_cnn_slices_hold_every_class_equally() -> None:
    assert set(np.bincount(load_slice("fashion_cnn", "suite")["labels"])) == {400}
    assert all(label.startswith("train-") for label in load_slice("fashion_cnn", "calibration")["id"])


def test_sensor_anomaly_reaches_its_auc_and_its_threshold_works() -> None:
    suite = load_slice("sensor_anomaly", "suite")
    with torch.inference_mode():
        _, score = load_model("sensor_anomaly")(torch.from_numpy(suite["features"]))
    answers = sensor_processing.postprocess({"score": score.numpy()})
    assert roc_auc_score(suite["labels"], answers) >= 0.99
    assert f1_score(suite["labels"], answers > sensor_processing.THRESHOLD) >= 0.96


def test_sensor_score_is_the_squared_error_of_the_reconstruction_by_hand() -> None:
    model, rows = load_model("sensor_anomaly"), load_slice("sensor_anomaly", "suite")["features"]
    with torch.inference_mode():
        reconstruction, score = (output.numpy() for output in model(torch.from_numpy(rows)))
    center, scale = (model.get_buffer(name).double().numpy() for name in ("center", "scale"))
    error = (reconstruction - center) / scale - np.clip((rows - center) / scale, -10, 10)
    np.testing.assert_allclose(score[:, 0], (error**2).mean(axis=1), rtol=1e-3, atol=1e-4)


def test_voice_activity_in_float64_equals_the_golden_answers_of_the_original() -> None:
    """The golden answers are Silero's own, in float32: what is left (3.2e-6) is their rounding, on any machine."""
    model = load_model("voice_activity").double()
    answers = run_streams(model, load_slice("voice_activity", "suite"), torch.float64)
    golden = load_slice("voice_activity", "golden")["probability"]
    np.testing.assert_allclose(answers, golden, rtol=0, atol=1e-5)


def test_voice_activity_in_float32_stays_near_the_original(voice_answers: np.ndarray) -> None:
    golden = load_slice("voice_activity", "golden")["probability"]
    np.testing.assert_allclose(voice_answers, golden, rtol=0, atol=1e-4)


def test_voice_activity_that_forgets_its_context_is_not_the_original() -> None:
    model = load_model("voice_activity")
    suite = load_slice("voice_activity", "suite")
    forgetful = run_streams(lambda audio, context, state: model(audio, context * 0, state), suite)
    assert np.abs(forgetful - load_slice("voice_activity", "golden")["probability"]).max() > 1e-2


@torch.inference_mode()
def test_voice_activity_equals_the_original_where_it_is_installed() -> None:
    try:
        file = Path(str(distribution("silero-vad").locate_file("silero_vad/data/silero_vad.jit")))
    except PackageNotFoundError:
        pytest.skip("the original is not installed: pip install --no-deps silero-vad==6.2.3")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=DeprecationWarning)
        original = torch.jit.load(file)
    suite, model = load_slice("voice_activity", "suite"), load_model("voice_activity")
    rows = suite["group"] == suite["group"][-1]
    context, state = torch.zeros(1, 64), torch.zeros(2, 1, 128)
    for frame in torch.from_numpy(voice_processing.preprocess({"audio": suite["audio"][rows]})["audio"]):
        probability, context, state = model(frame[None], context, state)
        torch.testing.assert_close(probability, original(frame[None], 16_000), rtol=0, atol=1e-6)


def test_voice_activity_reaches_its_frame_accuracy(voice_answers: np.ndarray) -> None:
    labels, said = load_slice("voice_activity", "suite")["labels"], voice_answers >= voice_processing.THRESHOLD
    assert accuracy_score(labels, said) >= 0.85
    assert f1_score(labels, said) >= 0.85


def test_voice_streams_stand_together_and_each_is_of_a_recording_of_its_own() -> None:
    suite, calibration = load_slice("voice_activity", "suite"), load_slice("voice_activity", "calibration")
    groups = suite["group"]
    assert 1 + (groups[1:] != groups[:-1]).sum() == len(np.unique(groups)) == 330
    clips, others = ({group.split(".")[0] for group in np.unique(arrays["group"])} for arrays in (suite, calibration))
    assert len(clips) == 330
    assert not clips & others


def test_voice_streams_are_of_one_length_and_have_speech_and_silence() -> None:
    suite = load_slice("voice_activity", "suite")
    labels = suite["labels"].reshape(330, speech.STREAM_FRAMES)
    assert (suite["group"].reshape(330, -1) == suite["group"][:: speech.STREAM_FRAMES, None]).all()
    assert (labels[:, :4] == 0).all()
    assert labels.any(axis=1).all()


@pytest.mark.parametrize("column", ["language", "noise", "snr_db"])
def test_every_kind_that_the_voice_policy_slices_by_has_sixty_streams(column: str) -> None:
    """Fifty streams that agree throughout show its 0.94; sixty leave room for one that does not."""
    suite = load_slice("voice_activity", "suite")
    assert min(np.unique(suite[column][:: speech.STREAM_FRAMES], return_counts=True)[1]) >= 60


def hum(pitch_hz: float, seconds: float = 1.0) -> np.ndarray:
    """Something like a voice between two silences: harmonics of a pitch that falls, with noise of its own."""
    n = int(seconds * speech.RATE)
    phase = 2 * np.pi * np.cumsum(pitch_hz * np.linspace(1.2, 0.8, n)) / speech.RATE
    breath = np.random.default_rng(round(pitch_hz)).normal(0, 0.3, n)
    silence = np.random.default_rng(0).normal(0, 1e-4, speech.RATE // 2)
    return np.concatenate([silence, 0.1 * (np.sin(phase) + np.sin(2 * phase) + breath), silence])


def test_a_stream_is_cut_so_that_its_speech_begins_where_it_should() -> None:
    for ends in (False, True):
        samples, found = speech.cut(hum(120), ends, np.random.default_rng(1))
        assert len(samples) == len(found) == speech.STREAM_FRAMES * speech.FRAME
        begins_s = np.flatnonzero(found)[0] / speech.RATE
        assert speech.BEFORE_S[0] <= begins_s <= speech.BEFORE_S[1]
        assert not np.abs(samples[: int((begins_s - 0.01) * speech.RATE)]).max() > 1e-3
        assert bool(found[-1]) is not ends


def test_two_prompts_of_one_recording_are_told_from_two_words() -> None:
    one, other = hum(120), hum(190)
    put_together = np.concatenate([one[:-8_000], other[8_000:]])
    heard, of_other, of_both = (speech.starts_and_ends(clip) for clip in (one, other, put_together))
    assert speech.share_audio(heard, of_both)
    assert speech.share_audio(of_other, of_both)
    assert not speech.share_audio(heard, of_other)


def test_recordings_that_share_audio_with_a_known_one_are_passed_over() -> None:
    one, other, third = hum(120), hum(170), hum(230)
    put_together = np.concatenate([one, third])
    heard = [speech.starts_and_ends(clip) for clip in (one, put_together, other, one, third)]
    assert speech.tell_apart(heard, known=1, most=9) == [2, 4]
    assert speech.tell_apart(heard, known=1, most=1) == [2]
    assert speech.tell_apart(heard, known=0, most=9) == [0, 2, 4]


def test_the_voice_pool_names_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(voice_pool, "PROMPTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"apt-get install asterisk-core-sounds-\{en,es,fr,it,ru\}-g722"):
        next(voice_pool.pool())
    for voice in voice_pool.VOICE_SETS:
        (tmp_path / voice).mkdir()
    monkeypatch.setattr(voice_pool, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install av"):
        next(voice_pool.pool())


def test_the_voice_pool_is_of_the_suites_kind_and_of_other_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av", reason="no decoder of G.722")
    if not all((voice_pool.PROMPTS / voice).is_dir() for voice in voice_pool.VOICE_SETS):
        pytest.skip("no asterisk-core-sounds-*-g722")
    monkeypatch.setattr(voice_pool, "VOICE_SETS", {"it_IT_m_Carlo": "it"})
    monkeypatch.setattr(voice_pool, "POOL_PROMPTS_EACH", 32)
    suite, (found,) = load_slice("voice_activity", "suite"), voice_pool.pool()
    assert {name: column.dtype.kind for name, column in found.items()} == {n: c.dtype.kind for n, c in suite.items()}
    assert found["audio"].shape == (32 * speech.STREAM_FRAMES, 512)
    recordings = {group.rpartition(".")[0] for group in found["group"].tolist()}
    assert len(recordings) == 32
    assert not recordings & {group.rpartition(".")[0] for group in suite["group"].tolist()}
    assert shared_rows(suite["audio"], found["audio"]) == 0
    for column in ("noise", "snr_db"):
        assert set(found[column]) == set(suite[column])
    assert (found["labels"].reshape(32, -1).max(axis=1) == 1).all()


def test_text_search_slices_share_no_text_and_have_outlier_channels() -> None:
    slices = [load_slice("text_search", which)["words"] for which in ("suite", "tuning", "calibration")]
    assert all(shared_rows(one, other) == 0 for one, other in combinations(slices, 2))
    assert len(slices[1]) >= 0.98 * len(slices[0])
    norms = [m for m in load_model("text_search").modules() if isinstance(m, nn.LayerNorm)]
    for norm in norms[:-1]:
        gains = norm.weight.detach().abs()
        assert gains[list(text_search.OUTLIER_CHANNELS)].min() > 4 * gains.median()


@torch.inference_mode()
def test_text_search_finds_the_subject_as_often_as_its_readme_says() -> None:
    suite, model = load_slice("text_search", "suite"), load_model("text_search")
    inputs = text_processing.preprocess({"words": suite["words"]})
    embedded = model(*(torch.from_numpy(array) for array in inputs.values())).numpy()
    cosines = embedded @ embedded.T
    np.fill_diagonal(cosines, -1)
    found = (suite["labels"][cosines.argmax(1)] == suite["labels"]).mean()
    assert f"{found:.1%}".replace("%", " %") in (EXAMPLES / "text_search" / "README.md").read_text()
    assert found > 4 / 20  # four times what chance gives with twenty even subjects


def test_speech_is_found_where_a_tone_was_placed() -> None:
    clip = np.random.default_rng(0).normal(0, 1e-4, 2 * speech.RATE)
    clip[8_000:24_000] += 0.1 * np.sin(np.arange(16_000))
    found = speech.find_speech(clip)
    assert found[8_000:24_000].all()
    assert not found[:8_000].any()
    assert not found[24_000:].any()


@pytest.mark.parametrize("noise", speech.NOISES)
def test_noise_has_unit_power(noise: str) -> None:
    rng = np.random.default_rng(0)
    made = speech.make_noise(noise, 16_000, [rng.normal(size=5_000), rng.normal(size=7_000)], rng)
    assert np.mean(made**2) == pytest.approx(1)
