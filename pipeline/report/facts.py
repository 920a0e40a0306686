"""Everything that the report tells, gathered from a run's summary, artifacts and model."""

import csv
import dataclasses
import json
import pathlib
import platform
from importlib import metadata as package_metadata
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import path_utils

from components.data import anomaly_gate, data_checks, dataset, features
from components.data.data_limits import DataLimits
from components.data.dataset import CIFAR10, DataSet
from components.gate import label_check
from components.serving.serving_check import REPORT_FILE as SERVING_REPORT
from components.serving.serving_folder import CARD_HTML_FILE
from pipeline import pipeline
from pipeline.report import measures, origin
from pipeline.report.origin import Origin
from pipeline.report.run_store import StoredArtifact, StoredRun
from pipeline.root import Root
from pipeline.source_digest import source_digest
from pipeline.use.served_model import ServedModel
from trainer import settings
from trainer.byol import augmentations
from trainer.byol.config import PretrainingConfig, ViewConfig
from trainer.byol.run_fn import HISTORY_FILE
from trainer.probe.run_fn import RESULT_FILE

EXAMPLE_GEN, GATE, VERDICT = "Cifar10ExampleGen", "AnomalyGate", "Verdict"
SERVING_CHECK, MODEL_CARD = "ServingCheck", "ModelCard"
_HISTOGRAM_BINS = 24
VERDICT_FILE = "verdict.json"
MAP_IMAGES = 1000
SHOWN_VIEWS = 8
_LOOKED_THROUGH = 500  # training images among which one of each class is looked for
_PACKAGES = ("tfx", "tensorflow", "keras", "tensorflow-model-analysis", "apache-beam", "numpy")


@dataclasses.dataclass(frozen=True)
class TestSplit:
    """The test images and what the exported model says of them.

    Attributes:
        images: [n, height, width, 3] uint8.
        labels: [n] int64.
        probabilities: [n, classes] float32, of the signature that TFMA judged; None of an encoder without classifier.
        sample: [m] int64, the rows that were embedded.
        vectors: [m, d] float32.
    """

    __test__ = False  # pytest takes the name for a test

    images: np.ndarray
    labels: np.ndarray
    probabilities: np.ndarray | None
    sample: np.ndarray
    vectors: np.ndarray


@dataclasses.dataclass(frozen=True)
class Views:
    """Training images and two random views of each, as pretraining saw them; uint8 [k, height, width, 3]."""

    images: np.ndarray
    labels: np.ndarray
    first: np.ndarray
    second: np.ndarray


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One figure of the training data beside the span before.

    Attributes:
        name: of the figure.
        mean: over this run's training images.
        earlier_mean: over the earlier span's; None without one.
        distance: Kolmogorov-Smirnov distance of the two distributions; None without an earlier span.
        limit: above which the AnomalyGate speaks of drift; None without an earlier span.
        shape, earlier_shape: shares of the images in bins of equal width over both; empty without an earlier span.
    """

    name: str
    mean: float
    earlier_mean: float | None = None
    distance: float | None = None
    limit: float | None = None
    shape: tuple[float, ...] = ()
    earlier_shape: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What is known of the run's data.

    Attributes:
        span: its number; 0 without spans.
        earlier_span: the one it was compared with.
        counts: images of each class by split.
        figures: the training images' figures.
        findings: the AnomalyGate's, as it wrote them.
        allowed: whether errors were let through.
        unlabelled: training images without a label.
        rows: images of each split, labelled or not.
        agreement: LabelCheck's: with which share of the labels the served model agrees; empty when none was served.
    """

    span: int
    earlier_span: int | None
    counts: dict[str, list[int]]
    figures: list[Comparison]
    findings: list[dict[str, Any]]
    allowed: bool
    agreement: dict[str, Any] = dataclasses.field(default_factory=dict)
    unlabelled: int = 0
    rows: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Facts:
    """All of it.

    Attributes:
        summary: `summary.json`.
        settings: every setting of the run; empty for a run that recorded none.
        verdict: `verdict.json`; empty for a run without one.
        test: predictions and embeddings.
        history: the monitors' columns by name, a value an epoch.
        probe: what the probe recorded.
        views: the augmentations' work.
        data: validation.
        lineage: every artifact of the run.
        environment: versions and device, where the report was written.
        code_digest: of the code that ran; None for a run that recorded none.
        data_set: what was trained on.
        serving: what the serving check measured, and `size_mb` of the model; empty for a run without one.
        origin: how it came to be.
    """

    summary: dict[str, Any]
    settings: dict[str, Any]
    verdict: dict[str, Any]
    test: TestSplit
    history: dict[str, list[float]]
    probe: dict[str, Any]
    views: Views
    data: DataFacts
    lineage: list[StoredArtifact]
    environment: dict[str, str]
    code_digest: str | None
    data_set: DataSet = CIFAR10
    serving: dict[str, Any] = dataclasses.field(default_factory=dict)
    origin: Origin = dataclasses.field(default_factory=Origin)


def gather(run: StoredRun, summary: dict[str, Any], root: Root) -> Facts:
    """Reads a finished run.

    Args:
        run: its record.
        summary: its `summary.json`.
        root: where it ran.
    """
    lineage = _told_lineage(run)
    examples = _tfx(run.output(EXAMPLE_GEN, "Examples"))
    judged = pipeline.TEST_EXAMPLE_GEN if pipeline.TEST_EXAMPLE_GEN in run.nodes else EXAMPLE_GEN
    values = lineage.get("settings", {})
    probe_logs = pathlib.Path(run.output(pipeline.LINEAR_PROBE, "ModelRun").uri)
    return Facts(
        summary=summary,
        settings=values,
        verdict=_verdict(run),
        test=_test_split(run, _tfx(run.output(judged, "Examples"))),
        history=read_history(pathlib.Path(run.output(pipeline.PRETRAINER, "ModelRun").uri) / HISTORY_FILE),
        probe=json.loads((probe_logs / RESULT_FILE).read_text()),
        views=_views(values, examples),
        data=_data(run, examples),
        lineage=[artifact for node in run.nodes for artifact in run.outputs(node)],
        environment=environment(),
        code_digest=lineage.get("code_digest"),
        data_set=anomaly_gate.data_set_of(examples),
        serving=_serving(run),
        origin=_origin(run, summary, root, lineage, anomaly_gate.data_set_of(examples)),
    )


def _serving(run: StoredRun) -> dict[str, Any]:
    """The serving check's figures and the size of the exported model in MB."""
    for artifact in run.outputs(SERVING_CHECK):
        path = pathlib.Path(artifact.uri) / SERVING_REPORT
        if path.is_file():
            folder = pathlib.Path(
                path_utils.serving_model_path(run.output(pipeline.LINEAR_PROBE, "Model").uri)
            )
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            return {**json.loads(path.read_text()).get("figures", {}), "size_mb": size / 1e6}
    return {}


def _origin(
    run: StoredRun, summary: dict[str, Any], root: Root, told: dict[str, Any], data_set: DataSet
) -> Origin:
    summary_file = root.summary(summary["run_id"])
    links = {"summary.json": summary_file, "log files": root.logs}
    for node, name, words in (
        (MODEL_CARD, CARD_HTML_FILE, "model card"),
        (VERDICT, VERDICT_FILE, "verdict.json"),
    ):
        links.update((words, pathlib.Path(artifact.uri) / name) for artifact in run.outputs(node))
    # Only code that is still what ran has its commit.
    same_code = told.get("code_digest") == source_digest(pipeline.ALL_SOURCES)
    return Origin(
        pictures=origin.pictures(pathlib.Path(summary["data"]), data_set),
        command=origin.command(summary["preset"], summary["data"], told.get("settings", {}), data_set),
        commit=origin.commit() if same_code else "",
        links=links,
        earlier=origin.last_runs(root.path.glob("runs/*/summary.json"), summary["run_id"]),
    )


def read_history(path: pathlib.Path) -> dict[str, list[float]]:
    """The columns of a pretraining's CSV."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name] or "nan") for row in rows] for name in rows[0]}


def environment() -> dict[str, str]:
    """Versions and device of this process."""
    devices = [device.name for device in tf.config.list_physical_devices() if device.device_type != "CPU"]
    versions = {name: package_metadata.version(name) for name in _PACKAGES}
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "accelerators": ", ".join(devices) or "none",
        **versions,
    }


def make_views(config: PretrainingConfig, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two views of uint8 [k, height, width, 3], drawn as pretraining draws them: uint8 [k, size, size, 3] each."""
    seeds = keras.random.SeedGenerator(config.seed)
    made = [_view(images, view, seeds) for view in (config.view_1, config.view_2)]
    return made[0], made[1]


def _view(images: np.ndarray, config: ViewConfig, seeds: keras.random.SeedGenerator) -> np.ndarray:
    view = augmentations.make_view(
        keras.ops.convert_to_tensor(images), augmentations.draw(len(images), seeds), config
    )
    return np.round(255.0 * keras.ops.convert_to_numpy(view)).astype(np.uint8)


def _views(values: dict[str, Any], examples: standard_artifacts.Examples) -> Views:
    """Views with the settings of the run; the preset's own defaults where a run recorded none."""
    rows = _rows(examples, features.TRAIN_SPLIT, _LOOKED_THROUGH)
    images, labels = rows.images, rows.labels
    chosen = measures.one_of_each(labels, anomaly_gate.data_set_of(examples).classes)[:SHOWN_VIEWS]
    if len(chosen) == 0:  # no label among the first ones
        chosen = np.arange(min(SHOWN_VIEWS, len(labels)))
    config = settings.from_dict(PretrainingConfig, values["pretraining"], "pretraining.")
    first, second = make_views(config, images[chosen])
    return Views(images[chosen], labels[chosen], first, second)


def _test_split(run: StoredRun, examples: standard_artifacts.Examples) -> TestSplit:
    rows = _rows(examples, features.TEST_SPLIT)
    model = ServedModel(
        pathlib.Path(path_utils.serving_model_path(run.output(pipeline.LINEAR_PROBE, "Model").uri))
    )
    sample = measures.spread_rows(len(rows.labels), MAP_IMAGES)
    classifies = "evaluate" in model.signatures
    return TestSplit(
        images=rows.images,
        labels=rows.labels,
        probabilities=(
            model.call("evaluate", {"examples": rows.serialized})["probabilities"] if classifies else None
        ),
        sample=sample,
        vectors=model.call("embed_pixels", {"pixels": rows.images[sample]})["embedding"],
    )


@dataclasses.dataclass(frozen=True)
class _Rows:
    serialized: np.ndarray
    images: np.ndarray
    labels: np.ndarray


def _rows(examples: standard_artifacts.Examples, split: str, limit: int = -1) -> _Rows:
    """The first rows of a split, or all."""
    folder = artifact_utils.get_split_uri([examples], split)
    files = sorted(map(str, pathlib.Path(folder).glob("*")))
    compression = "GZIP" if files[0].endswith(".gz") else ""
    records = list(tf.data.TFRecordDataset(files, compression).take(limit).as_numpy_iterator())
    spec = {
        features.IMAGE: tf.io.FixedLenFeature([], tf.string),
        features.LABEL: tf.io.FixedLenFeature([], tf.int64),
    }
    parsed = tf.io.parse_example(records, spec)
    pixels = np.frombuffer(b"".join(parsed[features.IMAGE].numpy()), np.uint8)
    return _Rows(
        serialized=np.array(records, dtype=object),
        images=pixels.reshape(-1, *anomaly_gate.data_set_of(examples).shape),
        labels=parsed[features.LABEL].numpy(),
    )


def _data(run: StoredRun, examples: standard_artifacts.Examples) -> DataFacts:
    written = json.loads(
        (pathlib.Path(run.output(GATE, "ExampleAnomalies").uri) / anomaly_gate.REPORT_FILE).read_text()
    )
    span = anomaly_gate.span_of(examples)
    earlier = [
        _tfx(artifact) for artifact in run.inputs(GATE) if artifact.key == anomaly_gate.EARLIER_EXAMPLES_KEY
    ]
    before = anomaly_gate.newest_before(span, earlier)
    splits = anomaly_gate.read_splits(examples)
    train = splits[features.TRAIN_SPLIT].compared_figures()
    earlier_train = (
        anomaly_gate.read_splits(before[0])[features.TRAIN_SPLIT].compared_figures() if before else {}
    )
    limits = _limits(run)
    classes = anomaly_gate.data_set_of(examples).classes
    return DataFacts(
        span=span,
        earlier_span=anomaly_gate.span_of(before[0]) if before else None,
        counts={
            name: np.bincount(rows.labelled().labels, minlength=classes).tolist()
            for name, rows in splits.items()
        },
        rows={name: len(rows.labels) for name, rows in splits.items()},
        unlabelled=int((splits[features.TRAIN_SPLIT].labels == dataset.UNLABELLED).sum()),
        figures=[_compared(name, values, earlier_train.get(name), limits) for name, values in train.items()],
        findings=written["findings"],
        allowed=bool(written[anomaly_gate.ALLOW_KEY]),
        agreement=_agreement(run),
    )


def _limits(run: StoredRun) -> DataLimits:
    """As the run was told; a run of before a limit was a setting was not told it."""
    told = {field.name: run.told(GATE, field.name) for field in dataclasses.fields(DataLimits)}
    return DataLimits(**{name: float(value) for name, value in told.items() if value is not None})


def _agreement(run: StoredRun) -> dict[str, Any]:
    """What LabelCheck wrote, of a run that has one and had a served model to ask."""
    for artifact in run.outputs(pipeline.LABEL_CHECK):
        found: dict[str, Any] = json.loads((pathlib.Path(artifact.uri) / label_check.REPORT_FILE).read_text())
        return found if found.get("agreement") is not None else {}
    return {}


def _compared(name: str, values: np.ndarray, earlier: np.ndarray | None, limits: DataLimits) -> Comparison:
    if earlier is None:
        return Comparison(name, float(values.mean()))
    edges = np.histogram_bin_edges(np.concatenate([values, earlier]), _HISTOGRAM_BINS)
    return Comparison(
        name,
        shape=tuple((np.histogram(values, edges)[0] / len(values)).tolist()),
        earlier_shape=tuple((np.histogram(earlier, edges)[0] / len(earlier)).tolist()),
        mean=float(values.mean()),
        earlier_mean=float(earlier.mean()),
        distance=float(data_checks.ks_distance(values, earlier)),
        limit=data_checks.distance_limit(len(values), len(earlier), limits),
    )


def _told_lineage(run: StoredRun) -> dict[str, Any]:
    """Settings and code digest, as the Pusher was told them."""
    told = run.told(pipeline.PUSHER, "custom_config") if pipeline.PUSHER in run.nodes else None
    lineage: dict[str, Any] = json.loads(told)["lineage"] if told else {}
    return lineage


def _verdict(run: StoredRun) -> dict[str, Any]:
    """`verdict.json` of a run that has one."""
    for artifact in run.outputs(VERDICT):
        path = pathlib.Path(artifact.uri) / VERDICT_FILE
        if path.is_file():
            found: dict[str, Any] = json.loads(path.read_text())
            return found
    return {}


def _tfx(artifact: StoredArtifact) -> standard_artifacts.Examples:
    """The Examples as TFX's own class, which its helpers take."""
    examples = standard_artifacts.Examples()
    examples.set_mlmd_artifact(artifact.message)
    return examples
