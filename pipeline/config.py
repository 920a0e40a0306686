"""Presets: the only home of values. No TensorFlow, no Keras, so that the command line starts fast."""

import dataclasses
import difflib
from collections.abc import Sequence

from components.data import data_limits
from components.data.data_limits import DataLimits
from components.serving.serving_limits import APPROVALS, AUTOMATIC, REFUSE, WITHOUT_LABELS, ServingLimits
from trainer import architecture, settings
from trainer.byol.config import WARM_STARTS, HeadConfig, OptimizerConfig, PretrainingConfig, ViewConfig
from trainer.probe.config import ProbeConfig


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """What a model must reach on the test split before it is pushed; docs/decisions/0040-the-gate.md says why so.

    Accuracies are shares, 0 to 1, of the linear probe on the exported encoder.

    Attributes:
        minimum_accuracy: floor of the accuracy over every test image.
        class_floors: floor of the accuracy on each class: one number for all, one each in the order of the data set's
            label names, or by name, {'cat': 0.4, 'dog': 0.3}; then a class that is not named has none.
        minimum_gain: by how much the model must beat the same probe on an untrained encoder, beyond doubt: the lower
            bound of the paired interval of the gain must reach it.
        maximum_regression: how much worse than the served model it may be. It is refused when the whole paired
            interval of the change lies below minus this: noise does not block, and more than that does not pass.
        minimum_corrupted_accuracy: floor of the mean accuracy over the corruptions of `components/gate/corruptions.py`.
        minimum_worst_corrupted_accuracy: floor of the accuracy under each of them.
        minimum_label_agreement: share of a new span's training labels with which the served model must agree, at the
            least: permuted labels show here, whatever the pictures look like.
        minimum_test_images: the test split must hold at least as many; a gate on fewer proves less.
        confidence: of each bound of a paired interval, one-sided.
        seed_spread: how far the accuracies of one recipe's seeds lie apart, where that was measured; a change is called
            better or worse in the verdict only when its whole interval lies beyond. It decides nothing else.
        robustness_images: test images that are corrupted, a fixed sample; no more than minimum_test_images are taken.
        corruption_severity: 1 to 5.
        approval: "automatic" pushes what the gate blessed; "manual" keeps it as a candidate until `byol approve` or
            `byol reject`.
        without_labels: of a data set without any label, of which nothing can be judged: "refuse" pushes no encoder,
            "push" pushes one that passed the serving check alone.
    """

    minimum_accuracy: float
    class_floors: tuple[float, ...] | dict[str, float]
    minimum_gain: float
    maximum_regression: float
    minimum_corrupted_accuracy: float
    minimum_worst_corrupted_accuracy: float
    minimum_label_agreement: float
    minimum_test_images: int
    confidence: float = 0.95
    seed_spread: float = 0.0
    robustness_images: int = 2000
    corruption_severity: int = 3
    approval: str = AUTOMATIC
    without_labels: str = REFUSE

    def __post_init__(self) -> None:
        for name in (
            "minimum_accuracy",
            "maximum_regression",
            "seed_spread",
            "minimum_corrupted_accuracy",
            "minimum_worst_corrupted_accuracy",
            "minimum_label_agreement",
        ):
            _check_share(name, getattr(self, name))
        floors = self.class_floors
        for floor in floors.values() if isinstance(floors, dict) else floors:
            _check_share("class_floors", floor)
        if not self.class_floors:
            raise ValueError("gate.class_floors is one floor, or one for each class; received none.")
        if not -1.0 <= self.minimum_gain <= 1.0:
            raise ValueError(f"gate.minimum_gain is a difference, -1 to 1; received {self.minimum_gain}.")
        if not 0.5 < self.confidence < 1.0:
            raise ValueError(f"gate.confidence is above 0.5 and below 1; received {self.confidence}.")
        if not 1 <= self.corruption_severity <= 5:
            raise ValueError(f"gate.corruption_severity is 1 to 5; received {self.corruption_severity}.")
        _check_choice("approval", self.approval, APPROVALS)
        _check_choice("without_labels", self.without_labels, WITHOUT_LABELS)
        for name in ("minimum_test_images", "robustness_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"gate.{name} is at least 1; received {getattr(self, name)}.")

    def floors(self, label_names: Sequence[str]) -> tuple[float, ...]:
        """The floor of each of the data set's classes, in the order of its label names; none without classes.

        Raises:
            ValueError: there are several, and not as many as classes, or one is of a class that is none of these.
        """
        classes = len(label_names)
        if not classes:
            return ()
        if isinstance(self.class_floors, dict):
            for name in self.class_floors.keys() - set(label_names):
                close = difflib.get_close_matches(name, label_names, n=1)
                hint = (
                    f"Did you mean {close[0]!r}?"
                    if close
                    else f"There are {classes}, {label_names[0]!r} first."
                )
                raise ValueError(
                    f"gate.class_floors names {name!r}, which is no class of this data set. {hint}"
                )
            return tuple(self.class_floors.get(name, 0.0) for name in label_names)
        if len(self.class_floors) not in (1, classes):
            raise ValueError(
                f"gate.class_floors is one number, or one for each of {classes} classes; "
                f"received {len(self.class_floors)}."
            )
        return self.class_floors if len(self.class_floors) == classes else self.class_floors * classes


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"gate.{name} is one of {', '.join(known)}; received {value!r}.")


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ValueError(f"gate.{name} is a share, 0 to 1; received {value}.")


ENGINES = ("local", "processes", "portable", "flink", "spark", "dataflow")


@dataclasses.dataclass(frozen=True)
class BeamConfig:
    """Where Beam runs the data components and the Evaluator; docs/beam.md has the flags of each engine.

    Attributes:
        engine: "local", one process; "processes", `workers` processes of this machine; "portable", a job server at
            `endpoint`; "flink" and "spark", a cluster's job server or master at `endpoint`; "dataflow".
        workers: processes, or parallelism where the engine takes one.
        endpoint: host:port; only for the engines that have one.
        flags: further Beam options as they are, separated by spaces; later ones win.
        start_seconds: within which an engine must have started a worker and run a job of one row on it, before a run
            begins.
        silence_minutes: an engine whose job neither changes its state nor says anything for so long ends the node.
            Flink and Spark say nothing while they work: it must be more than a node takes.
        page: address of the engine's own page, shown beside the job that runs. Flink's is that of its REST API too, by
            which a job is ended there.
    """

    engine: str = "local"
    workers: int = 2
    endpoint: str = ""
    flags: str = ""
    start_seconds: float = 180.0
    silence_minutes: float = 240.0
    page: str = ""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"beam.engine is one of {', '.join(ENGINES)}; received {self.engine!r}.")
        if self.workers < 1:
            raise ValueError(f"beam.workers is at least 1; received {self.workers}.")
        if self.engine in ("portable", "flink", "spark") and not self.endpoint:
            raise ValueError(f"beam.engine={self.engine} needs beam.endpoint=HOST:PORT; received none.")
        if self.endpoint and not self.endpoint.rpartition(":")[2].isdecimal():
            raise ValueError(f"beam.endpoint is HOST:PORT; received {self.endpoint!r}.")
        for name in ("start_seconds", "silence_minutes"):
            if getattr(self, name) <= 0:
                raise ValueError(f"beam.{name} is above 0; received {getattr(self, name)}.")

    @property
    def has_cluster(self) -> bool:
        """Whether the engine is another program than this process and its children."""
        return self.engine not in ("local", "processes")


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """One preset: what is trained, how it is probed and what it must reach.

    Attributes:
        encoder, pretraining, probe, gate, data, serving: see their classes.
        warm_start: what a scheduled retraining starts from, one of `trainer.byol.config.WARM_STARTS`: "never" from
            random weights, "encoder" from the served encoder, "full" from its heads and target as well.
        keep_versions: pushed versions that stay in the serving folder.
        allow_anomalies: lets a run go on whose data AnomalyGate or LabelCheck object to; recorded with the run. True or
            "all" for whatever they find, or kinds of findings separated by commas: class_balance, class_shares,
            figures, class_figures, repeats, labels, leak, schema.
        memory_mb: the Trainers hold a split in memory whose pixels take at most so many megabytes (10^6 bytes), and
            stream a larger one. While it is opened it is there twice.
        beam: see its class.
    """

    encoder: architecture.EncoderConfig
    pretraining: PretrainingConfig
    probe: ProbeConfig
    gate: GateConfig
    warm_start: str = "never"
    keep_versions: int = 5
    allow_anomalies: bool | str = False
    memory_mb: int = 1536  # 500,000 pictures of 32x32
    data: DataLimits = dataclasses.field(default_factory=DataLimits)
    serving: ServingLimits = dataclasses.field(default_factory=ServingLimits)
    beam: BeamConfig = BeamConfig()

    def __post_init__(self) -> None:
        if self.warm_start not in WARM_STARTS:
            raise ValueError(f"warm_start is one of {', '.join(WARM_STARTS)}; received {self.warm_start!r}.")
        if self.memory_mb < 0:
            raise ValueError(f"memory_mb is at least 0; received {self.memory_mb}.")
        data_limits.allowed_kinds(self.allow_anomalies)


# 24 pixels instead of 32: three fifths of the work, and more accuracy for the same minutes
# (docs/results/cifar10-cpu.md).
_SMALL_VIEW = ViewConfig(size=24, minimum_area=0.2)

# Real CIFAR-10 on a CPU: four points below what was measured (docs/results/cifar10-cpu.md).
_CPU_GATE = GateConfig(
    minimum_accuracy=0.61,
    class_floors=(0.25,),
    minimum_gain=0.05,
    maximum_regression=0.01,
    minimum_corrupted_accuracy=0.35,
    minimum_worst_corrupted_accuracy=0.2,
    minimum_label_agreement=0.3,
    minimum_test_images=10_000,
)

PRESETS: dict[str, PipelineConfig] = {
    # The embedded data set on two CPU cores; docs/results/demo.md has minutes and accuracy.
    "demo": PipelineConfig(
        encoder=architecture.RESNET8_TINY,
        pretraining=PretrainingConfig(
            epochs=10,
            batch_size=128,
            base_tau=0.97,
            head=HeadConfig(hidden_dim=256, output_dim=64),
            optimizer=OptimizerConfig(base_learning_rate=0.4, warmup_steps=100),
            view_1=_SMALL_VIEW,
            view_2=_SMALL_VIEW,
            checkpoint_minutes=0.5,
            monitor_images=500,
        ),
        probe=ProbeConfig(),
        gate=GateConfig(
            minimum_accuracy=0.8,
            class_floors=(0.6,),
            minimum_gain=0.1,
            maximum_regression=0.005,
            minimum_corrupted_accuracy=0.5,
            minimum_worst_corrupted_accuracy=0.3,
            minimum_label_agreement=0.5,
            minimum_test_images=2000,
            seed_spread=0.043,  # 93.5%, 97.8% and 95.2%: docs/results/demo.md
        ),
    ),
    # Real CIFAR-10 on two CPU cores within the hour; docs/results/cifar10-cpu.md has minutes and accuracy.
    "cpu": PipelineConfig(
        encoder=architecture.RESNET10_NARROW,
        pretraining=PretrainingConfig(
            epochs=40,
            batch_size=256,
            base_tau=0.97,
            head=HeadConfig(hidden_dim=512, output_dim=128),
            optimizer=OptimizerConfig(base_learning_rate=0.4, warmup_steps=200),
            view_1=_SMALL_VIEW,
            view_2=_SMALL_VIEW,
            precision="auto",
            monitor_epochs=2,
        ),
        probe=ProbeConfig(),
        gate=_CPU_GATE,
    ),
    # The same for a night: a network of twice the work an image, at most eight hours by its own estimate where the
    # processor multiplies bfloat16. Not run to its end yet: its floors are those of `cpu`.
    "cpu-night": PipelineConfig(
        encoder=architecture.RESNET10,
        pretraining=PretrainingConfig(
            epochs=300,
            batch_size=256,
            base_tau=0.98,
            head=HeadConfig(hidden_dim=1024, output_dim=256),
            optimizer=OptimizerConfig(base_learning_rate=0.4, warmup_steps=500),
            view_1=_SMALL_VIEW,
            view_2=_SMALL_VIEW,
            precision="auto",
            monitor_epochs=10,
        ),
        probe=ProbeConfig(),
        gate=_CPU_GATE,
    ),
    # Real CIFAR-10, ResNet-18, one GPU. Heads, views, warm-up and tau of solo-learn's cifar/byol.yaml, and the SGD of
    # lightly's cifar10_benchmark.py: 0.06 for a batch of 128, momentum 0.9, decay 5e-4. Its loss is a quarter of ours,
    # so the rate is; its decay is coupled, so that momentum multiplies it by 1 / (1 - 0.9), and for a kernel to shrink
    # as much a step at a quarter of the rate, ours is 40 times as large (docs/decisions/0030-optimizers.md). Not run
    # yet: its floor is the 82.03% that garder14/byol-tensorflow2 publishes for 100 epochs.
    "gpu": PipelineConfig(
        encoder=architecture.RESNET18,
        pretraining=PretrainingConfig(
            epochs=200,
            batch_size=512,
            base_tau=0.99,
            head=HeadConfig(hidden_dim=4096, output_dim=256),
            optimizer=OptimizerConfig(base_learning_rate=0.03, warmup_steps=970, weight_decay=0.02),
            view_1=ViewConfig(),
            view_2=ViewConfig(solarize=0.2),
            monitor_images=5000,
            monitor_epochs=10,
            precision="mixed_bfloat16",
            steps_per_execution=97,  # an epoch
        ),
        probe=ProbeConfig(epochs=100),
        gate=GateConfig(
            minimum_accuracy=0.82,
            class_floors=(0.5,),
            minimum_gain=0.2,
            maximum_regression=0.005,
            minimum_corrupted_accuracy=0.55,
            minimum_worst_corrupted_accuracy=0.3,
            minimum_label_agreement=0.5,
            minimum_test_images=10_000,
        ),
    ),
}


# Settings that are gone, and what to set instead.
_RENAMED = {
    "memory_images": "memory_mb, in megabytes of the pictures' pixels; 500000 pictures of 32x32 are memory_mb=1536"
}


def fitted(config: PipelineConfig, side: int) -> PipelineConfig:
    """The settings for pictures whose shorter side has `side` pixels, of settings that are made for 32.

    The stem halves larger pictures as often as they are twice as large, and a view is the same share of a picture
    (docs/decisions/0017-picture-sizes.md). For 32 pixels and fewer nothing changes.
    """
    side = max(side, architecture.BASE_SIDE)
    pretraining = dataclasses.replace(
        config.pretraining,
        view_1=config.pretraining.view_1.for_side(side, architecture.BASE_SIDE),
        view_2=config.pretraining.view_2.for_side(side, architecture.BASE_SIDE),
    )
    return dataclasses.replace(config, encoder=config.encoder.for_side(side), pretraining=pretraining)


def chosen_preset(preset: str, assignments: list[str], side: int = architecture.BASE_SIDE) -> PipelineConfig:
    """Returns the settings of a preset, fitted to the size of the pictures, with each "group.name=value" applied.

    Args:
        preset: its name.
        assignments: what is set by hand; it wins.
        side: pixels of the pictures' shorter side.

    Raises:
        ValueError: for a preset or setting that is not known, or a value of the wrong type.
    """
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. Known: {', '.join(PRESETS)}.")
    for assignment in assignments:
        name = assignment.partition("=")[0].strip()
        if name in _RENAMED:
            raise ValueError(f"There is no setting {name!r} any more. Set {_RENAMED[name]}.")
    return settings.override(fitted(PRESETS[preset], side), assignments)
