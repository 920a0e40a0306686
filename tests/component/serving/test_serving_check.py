"""The serving check on tiny models: a sound one passes, and each broken one is refused for what is broken."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts
from tfx.utils import path_utils

from components.data import features
from components.data.dataset import DataSet
from components.serving import serving_check, serving_folder, serving_requests
from components.serving.serving_limits import ServingLimits
from trainer.probe.image_decoding import decode_images

EMBEDDING = 4


@dataclasses.dataclass(frozen=True)
class Fault:
    """What is wrong with a model; nothing by default."""

    weight: float = 0.01
    scale: float = 255.0
    batch_statistics: bool = False
    guarded: bool = True
    probabilities_name: str = "probabilities"
    constant: bool = False
    shift_label: int = 0
    keras_variable: bool = False


class TinyModel(tf.Module):
    """The contract's four signatures over one random linear map."""

    def __init__(self, fault: Fault) -> None:
        super().__init__()
        generator = np.random.default_rng(1)
        self.fault = fault
        scale = 0.0 if fault.constant else fault.weight
        self.to_embedding = tf.Variable(
            scale * generator.standard_normal((3072, EMBEDDING)), dtype=tf.float32
        )
        if fault.keras_variable:
            self.to_embedding = keras.Variable(self.to_embedding, name="to_embedding")
        self.to_logits = tf.Variable(generator.standard_normal((EMBEDDING, 10)), dtype=tf.float32)

    def embed(self, pixels: Any) -> Any:
        flat = tf.reshape(tf.cast(pixels, tf.float32) / self.fault.scale, [-1, 3072])
        if self.fault.batch_statistics:
            flat -= tf.reduce_mean(flat, axis=0)
        return tf.matmul(flat, self.to_embedding)

    def classify_pixels(self, pixels: Any) -> Any:
        return tf.nn.softmax(self.embed(pixels) @ self.to_logits)

    def decode(self, images: Any) -> Any:
        if self.fault.guarded:
            return decode_images(images)
        return tf.map_fn(_decode_unguarded, images, fn_output_signature=tf.TensorSpec([32, 32, 3], tf.uint8))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes: Any) -> Any:
        return {"embedding": self.embed(self.decode(image_bytes))}

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8, name="pixels")])
    def embed_pixels(self, pixels: Any) -> Any:
        return {"embedding": self.embed(pixels)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def classify(self, image_bytes: Any) -> Any:
        probabilities = self.classify_pixels(self.decode(image_bytes))
        names = tf.constant(features.LABEL_NAMES)
        best = tf.argmax(probabilities, axis=1, output_type=tf.int32)
        return {
            self.fault.probabilities_name: probabilities,
            "label": tf.gather(names, (best + self.fault.shift_label) % 10),
            "label_names": tf.tile(names[tf.newaxis], [tf.shape(probabilities)[0], 1]),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples: Any) -> Any:
        parsed = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        pixels = tf.reshape(tf.io.decode_raw(parsed[features.IMAGE], tf.uint8), [-1, 32, 32, 3])
        return {"probabilities": self.classify_pixels(pixels)}


def _decode_unguarded(image: Any) -> Any:
    pixels = tf.io.decode_image(image, channels=3, expand_animations=False)[:32, :32]
    return tf.image.resize_with_crop_or_pad(pixels, 32, 32)


def _export(folder: pathlib.Path, fault: Fault, *signatures: str) -> pathlib.Path:
    module = TinyModel(fault)
    names = signatures or tuple(serving_requests.contract(10, (32, 32, 3)))
    tf.saved_model.save(module, str(folder), signatures={name: getattr(module, name) for name in names})
    return folder


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """What the trainer of the sound model leaves."""
    module = TinyModel(Fault())
    pixels = np.random.default_rng(2).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("model_run") / serving_check.REFERENCE_FILE
    np.savez(
        path,
        pixels=pixels,
        embedding=module.embed(pixels).numpy(),
        probabilities=module.classify_pixels(pixels).numpy(),
    )
    return path


def _problems(report: dict[str, Any]) -> dict[str, str]:
    return {check["check"]: check["problem"] for check in report["checks"] if not check["passed"]}


def _run_component(model: Any, blessing: Any, **inputs: Any) -> None:
    serving_check.ServingCheck.test_call(model=model, blessing=blessing, **inputs)


def _artifact(kind: Any, path: pathlib.Path, identifier: int = 0) -> Any:
    artifact = kind()
    artifact.uri = str(path)
    artifact.id = identifier
    return artifact


def test_a_sound_model_is_blessed_by_name_and_digest(tmp_path: pathlib.Path, reference: pathlib.Path) -> None:
    model = _artifact(standard_artifacts.Model, tmp_path / "model", 7)
    saved_model = pathlib.Path(path_utils.serving_model_dir(model.uri))
    _export(saved_model, Fault())
    blessing = _artifact(standard_artifacts.InfraBlessing, tmp_path / "blessing")
    _run_component(model, blessing, model_run=_artifact(standard_artifacts.ModelRun, reference.parent))

    report = json.loads((tmp_path / "blessing" / serving_check.REPORT_FILE).read_text())
    assert report["reason"] == ""
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("current_model") == model.uri
    assert blessing.get_int_custom_property("current_model_id") == 7
    assert blessing.get_string_custom_property("model_digest") == serving_folder.model_digest(saved_model)
    assert (tmp_path / "blessing" / "INFRA_BLESSED").exists()
    names = {check["check"] for check in report["checks"]}
    assert {
        "signatures",
        "broken PNG/classify",
        "PNG of 20,000 x 20,000/serving_default",
        "zero bytes/classify",
        "text/serving_default",
        "animated GIF/serving_default",
        "grey JPEG",
        "PNG of 600 x 400",
        "batches/embed_pixels",
        "batches/evaluate",
        "loaded as TensorFlow Serving does",
        "agreement with the trainer",
        "latency",
        "memory",
    } <= names
    figures = report["figures"]
    assert figures["reference_images"] == 40
    assert 0 < figures["latency_p50_ms"] <= figures["latency_p99_ms"]
    assert 0 < figures["memory_loaded_mb"] <= figures["memory_peak_mb"] < 4096


@pytest.mark.parametrize(
    ("fault", "check", "words"),
    [
        (Fault(weight=float("nan")), "first request/embed_pixels", "not finite in 4 of 4 values"),
        (Fault(scale=127.5), "agreement with the trainer", "the served embedding and the trainer's differ"),
        (Fault(batch_statistics=True), "batches/embed_pixels", "in a batch of one and of 257 differ"),
        (Fault(constant=True), "batches/serving_default", "the same for different images"),
        (Fault(shift_label=1), "agreement of signatures", "is not the likeliest class"),
        (Fault(keras_variable=True), "loaded as TensorFlow Serving does", "Could not find variable"),
        (
            Fault(probabilities_name="scores"),
            "signatures",
            "classify returns ['label', 'label_names', 'scores']",
        ),
    ],
    ids=[
        "NaN weights",
        "normalisation",
        "batch statistics",
        "constant",
        "labels",
        "Keras variables",
        "output name",
    ],
)
def test_a_broken_model_is_refused_for_what_is_broken(
    tmp_path: pathlib.Path, reference: pathlib.Path, fault: Fault, check: str, words: str
) -> None:
    saved_model = _export(tmp_path / "model", fault)
    # The same requests, in this process: starting TensorFlow for each of these models would take minutes.
    pixels = serving_check._pixels(reference)
    serving_check._write_request(tmp_path, saved_model, reference, pixels, ServingLimits())
    serving_requests.run_checks(serving_requests.Session(tmp_path), tmp_path)
    report = json.loads((tmp_path / serving_check.REPORT_FILE).read_text())
    assert words in _problems(report)[check]
    assert serving_check._summary(report["checks"]).startswith(next(iter(_problems(report))))


def test_an_unguarded_decoder_is_caught_by_the_memory_its_bomb_takes(tmp_path: pathlib.Path) -> None:
    saved_model = _export(tmp_path / "model", Fault(guarded=False))
    report = serving_check.check_model(saved_model, None, ServingLimits(max_memory_mb=1200))
    assert not report["passed"]
    assert report["reason"].startswith("PNG of 20,000 x 20,000/serving_default: ")
    assert "passed the memory limit of 1200 MiB" in report["reason"]


def test_an_animated_gif_that_is_answered_fails_its_check(tmp_path: pathlib.Path) -> None:
    _export(tmp_path / "model", Fault(guarded=False))
    serving_check._write_request(
        tmp_path, tmp_path / "model", None, serving_check._pixels(None), ServingLimits()
    )
    session = serving_requests.Session(tmp_path)
    session.load()
    with pytest.raises(serving_requests.CheckFailedError, match="answered instead of refused"):
        serving_requests.check_hostile_image(session, serving_requests.ANIMATED_GIF, "classify")


def test_a_failed_check_does_not_bless_and_does_not_raise(tmp_path: pathlib.Path) -> None:
    model = _artifact(standard_artifacts.Model, tmp_path / "model", 7)
    pathlib.Path(path_utils.serving_model_dir(model.uri)).mkdir(parents=True)
    blessing = _artifact(standard_artifacts.InfraBlessing, tmp_path / "blessing")
    _run_component(model, blessing)
    assert blessing.get_int_custom_property("blessed") == 0
    assert "has no saved_model.pb" in blessing.get_string_custom_property("reason")
    assert (tmp_path / "blessing" / "INFRA_NOT_BLESSED").exists()
    assert not (tmp_path / "blessing" / "INFRA_BLESSED").exists()


def test_missing_signatures_are_named(tmp_path: pathlib.Path) -> None:
    saved_model = _export(tmp_path / "model", Fault(), "serving_default", "classify")
    with pytest.raises(serving_requests.CheckFailedError, match="missing signatures: embed_pixels, evaluate"):
        _session(tmp_path, saved_model)


def test_an_encoder_without_a_classifier_is_checked_for_its_embeddings(
    tmp_path: pathlib.Path, reference: pathlib.Path
) -> None:
    unlabelled = DataSet("photos", "", (), 32, 32, unlabelled=True)
    saved_model = _export(tmp_path / "model", Fault(), "serving_default", "embed_pixels")
    with np.load(reference) as arrays:
        own = {"pixels": arrays["pixels"], "embedding": arrays["embedding"] + 1.0}
    np.savez(tmp_path / "reference.npz", **own)
    report = serving_check.check_model(saved_model, tmp_path / "reference.npz", ServingLimits(), unlabelled)
    assert list(_problems(report)) == ["agreement with the trainer"]
    checked = {check["check"] for check in report["checks"]}
    assert "animated GIF/serving_default" in checked
    assert not [name for name in checked if "classify" in name or "evaluate" in name]


def test_a_reference_that_should_be_there_and_is_not_refuses(tmp_path: pathlib.Path) -> None:
    saved_model = _export(tmp_path / "model", Fault())
    report = serving_check.check_model(saved_model, tmp_path / "none.npz", ServingLimits())
    assert not report["passed"]
    assert "none.npz" in report["reason"]


def test_a_model_that_takes_too_long_is_refused(tmp_path: pathlib.Path) -> None:
    saved_model = _export(tmp_path / "model", Fault())
    hanging = serving_check.check_model(saved_model, None, ServingLimits(timeout_seconds=0.5))
    assert not hanging["passed"]
    assert "it took more than the 0.5 s it may take" in hanging["reason"]


@pytest.fixture(scope="module")
def sound_model(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return _export(tmp_path_factory.mktemp("sound") / "model", Fault())


def _session(folder: pathlib.Path, saved_model: pathlib.Path, **limits: float) -> serving_requests.Session:
    serving_check._write_request(
        folder, saved_model, None, serving_check._pixels(None), ServingLimits(**limits)
    )
    session = serving_requests.Session(folder)
    session.load()
    return session


@pytest.mark.parametrize("quantile", ["p50", "p99"])
def test_a_slow_model_is_refused(tmp_path: pathlib.Path, sound_model: pathlib.Path, quantile: str) -> None:
    session = _session(tmp_path, sound_model, **{f"max_{quantile}_ms": 1e-6})
    with pytest.raises(serving_requests.CheckFailedError, match=f"the {quantile} latency of one image is"):
        serving_requests.check_latency(session)


def test_a_model_that_takes_too_much_memory_is_refused(
    tmp_path: pathlib.Path, sound_model: pathlib.Path
) -> None:
    session = _session(tmp_path, sound_model, max_memory_mb=1)
    with pytest.raises(serving_requests.CheckFailedError, match=r"the process took \d+ MiB, limit 1 MiB"):
        serving_requests.check_memory(session)


def test_a_refusal_that_takes_much_memory_is_no_refusal(
    tmp_path: pathlib.Path, sound_model: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _session(tmp_path, sound_model)
    peaks = iter([500.0, 757.0])
    monkeypatch.setattr(serving_requests, "peak_memory_mb", lambda: next(peaks))
    with pytest.raises(serving_requests.CheckFailedError, match="refusing it took 257 MiB, limit 256 MiB"):
        serving_requests.check_hostile_image(session, b"", "classify")


def test_the_process_cannot_import_the_project(tmp_path: pathlib.Path) -> None:
    # The project's root is on the path here, and still the block holds.
    root = pathlib.Path(serving_check.__file__).parents[2]
    program = (
        f"import sys; sys.path.insert(0, {str(root)!r})\n"
        "from components.serving import serving_requests\n"
        "for name in [n for n in sys.modules if n.split('.')[0] == 'components']: del sys.modules[name]\n"
        f"sys.meta_path.insert(0, "
        f"serving_requests.ProjectImportBlocker({list(serving_check.PROJECT_PACKAGES)!r}))\nimport "
        "trainer.networks\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "trainer is part of the project, which a server does not have" in result.stderr


def test_the_process_has_tensorflow_without_keras(tmp_path: pathlib.Path) -> None:
    program = (
        "from components.serving import serving_requests\nserving_requests.block_keras()\nimport sys, tensorflow\n"
        "print([name for name in sys.modules if name.split('.')[0] in serving_requests.KERAS])\nimport keras\n"
    )
    root = pathlib.Path(serving_check.__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert "import of keras halted" in result.stderr
    assert result.stdout == "['keras', 'tf_keras']\n"


def test_limits_are_read_strictly() -> None:
    assert serving_check.parse_limits('{"max_p99_ms": 20}').max_p99_ms == 20
    with pytest.raises(ValueError, match=r"Expected limits among .*tolerance.*, received max_p98_ms"):
        serving_check.parse_limits('{"max_p98_ms": 20}')
    with pytest.raises(ValueError, match="Expected a tolerance above 0, received -1"):
        serving_check.parse_limits('{"tolerance": -1}')
