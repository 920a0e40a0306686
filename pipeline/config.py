"""Presets: the only home of values. No TensorFlow, no Keras, so that the command line starts fast."""

import dataclasses

from trainer import architecture
from trainer.byol.config import HeadConfig, OptimizerConfig, PretrainingConfig, ViewConfig
from trainer.probe.config import ProbeConfig


@dataclasses.dataclass(frozen=True)
class GateConfig:
    """What a model must reach on the test split before it is pushed.

    Attributes:
        minimum_accuracy: floor of the linear probe's accuracy over every test image, 0 to 1.
        minimum_class_accuracy: floor of the same on the test images of each class, 0 to 1.
        maximum_regression: how far the accuracy may fall below the latest blessed model's, 0 to 1, however uncertain
            the difference.
        confidence: of the paired test that refuses a smaller fall as well when it is no noise, 0.5 to 1.
        minimum_test_images: the test split must hold at least as many; a gate on fewer proves less.
    """

    minimum_accuracy: float
    minimum_class_accuracy: float
    maximum_regression: float
    minimum_test_images: int
    confidence: float = 0.95

    def __post_init__(self) -> None:
        for name in ("minimum_accuracy", "minimum_class_accuracy", "maximum_regression"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"gate.{name} is a share, 0 to 1; received {getattr(self, name)}.")
        if not 0.5 <= self.confidence < 1.0:
            raise ValueError(f"gate.confidence is at least 0.5 and below 1; received {self.confidence}.")
        if self.minimum_test_images < 1:
            raise ValueError(f"gate.minimum_test_images is at least 1; received {self.minimum_test_images}.")


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
    """

    engine: str = "local"
    workers: int = 2
    endpoint: str = ""
    flags: str = ""

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"beam.engine is one of {', '.join(ENGINES)}; received {self.engine!r}.")
        if self.workers < 1:
            raise ValueError(f"beam.workers is at least 1; received {self.workers}.")
        if self.engine in ("portable", "flink", "spark") and not self.endpoint:
            raise ValueError(f"beam.engine={self.engine} needs beam.endpoint=HOST:PORT; received none.")


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """One preset: what is trained, how it is probed and what it must reach.

    Attributes:
        encoder, pretraining, probe, gate: see their classes.
        keep_versions: pushed versions that stay in the serving folder.
        allow_anomalies: lets a run go on whose data the AnomalyGate objects to; recorded with the run.
        memory_images: the Trainers hold a split of so many images in memory, 3 KB each, and stream a larger one.
        beam: see its class.
    """

    encoder: architecture.EncoderConfig
    pretraining: PretrainingConfig
    probe: ProbeConfig
    gate: GateConfig
    keep_versions: int = 5
    allow_anomalies: bool = False
    memory_images: int = 500_000
    beam: BeamConfig = BeamConfig()


# 24 pixels instead of 32: three fifths of the work, and more accuracy for the same minutes
# (docs/results/cifar10-cpu.md).
_SMALL_VIEW = ViewConfig(size=24, minimum_area=0.2)

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
            minimum_class_accuracy=0.6,
            maximum_regression=0.02,
            minimum_test_images=2000,
        ),
    ),
    # Real CIFAR-10 on two CPU cores within the hour; docs/results/cifar10-cpu.md has minutes and accuracy.
    "cpu": PipelineConfig(
        encoder=architecture.RESNET10_NARROW,
        pretraining=PretrainingConfig(
            epochs=25,
            batch_size=128,
            base_tau=0.97,
            head=HeadConfig(hidden_dim=512, output_dim=128),
            optimizer=OptimizerConfig(base_learning_rate=0.4, warmup_steps=200),
            view_1=_SMALL_VIEW,
            view_2=_SMALL_VIEW,
        ),
        probe=ProbeConfig(),
        gate=GateConfig(
            minimum_accuracy=0.55,
            minimum_class_accuracy=0.25,
            maximum_regression=0.02,
            minimum_test_images=10_000,
        ),
    ),
    # Real CIFAR-10, ResNet-18, one GPU. Recipe of solo-learn's cifar/byol.yaml with SGD instead of LARS. Not run yet:
    # its floor is the 82.03% that garder14/byol-tensorflow2 publishes for 100 epochs.
    "gpu": PipelineConfig(
        encoder=architecture.RESNET18,
        pretraining=PretrainingConfig(
            epochs=200,
            batch_size=512,
            base_tau=0.99,
            head=HeadConfig(hidden_dim=4096, output_dim=256),
            optimizer=OptimizerConfig(base_learning_rate=0.12, warmup_steps=970, weight_decay=5e-4),
            view_1=ViewConfig(),
            view_2=ViewConfig(solarize=0.2),
            monitor_images=5000,
            precision="mixed_bfloat16",
            steps_per_execution=10,
        ),
        probe=ProbeConfig(epochs=100),
        gate=GateConfig(
            minimum_accuracy=0.82,
            minimum_class_accuracy=0.5,
            maximum_regression=0.02,
            minimum_test_images=10_000,
        ),
    ),
}
