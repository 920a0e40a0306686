"""What a served model may take: the serving check's limits. The standard library only, for the command line's start."""

import dataclasses

# Who pushes what the gate blessed: the pipeline, or a person by `byol approve`.
AUTOMATIC, MANUAL = "automatic", "manual"
APPROVALS = (AUTOMATIC, MANUAL)
# What becomes of an encoder of which nothing can be judged, as no picture has a label.
REFUSE, PUSH = "refuse", "push"
WITHOUT_LABELS = (REFUSE, PUSH)


@dataclasses.dataclass(frozen=True)
class ServingLimits:
    """What a served model may take; the defaults tell a broken model from a sound one on any machine.

    Attributes:
        tolerance: the largest difference between numbers that have to be equal, relative to the largest of them where
            that is above 1.
        max_p50_ms: the median latency of a request of one image, on the CPU, one request after the other.
        max_p99_ms: the same at the 99th percentile.
        max_memory_mb: the resident memory of the whole process, TensorFlow included, in MiB.
        max_hostile_growth_mb: by how much refusing one bad image may raise it, in MiB. A PNG of 20,000 x 20,000 pixels
            decodes to 1,144 MiB.
        timeout_seconds: for all checks together.
    """

    tolerance: float = 1e-5
    max_p50_ms: float = 1000.0
    max_p99_ms: float = 5000.0
    max_memory_mb: float = 4096.0
    max_hostile_growth_mb: float = 256.0
    timeout_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not value > 0:
                raise ValueError(f"Expected a {name} above 0, received {value}.")
