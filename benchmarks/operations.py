r"""Where the time of our step goes, by kind of TensorFlow operation, on one thread.

    TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1 \
        .venv/bin/python -m benchmarks.operations [--keras]

prints milliseconds a step of each kind, the least of the rounds, for the `cpu` preset's step without augmentation;
`--keras` takes Keras' own batch norm and convolution instead of ours, `--views` the step with its augmentation, and
`--set pretraining.precision=mixed_bfloat16` other settings.
"""

import argparse
import collections
import contextlib
import pathlib
import tempfile

import tensorflow as tf

from benchmarks import train
from pipeline.config import PRESETS
from trainer import settings

STEPS, ROUNDS, SHOWN = 2, 5, 25


def profiled(run) -> dict[str, float]:
    """Milliseconds by kind of operation while `run` runs, from TensorFlow's own profiler."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        run()
        tf.profiler.experimental.stop()
        (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found: dict[str, float] = collections.defaultdict(float)
    for plane in space.planes:
        for event in (event for line in plane.lines for event in line.events):
            name, separator, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if separator and name:
                found[kind] += event.duration_ps / 1e9
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keras", action="store_true", help="Keras' own batch norm and convolution")
    parser.add_argument("--views", action="store_true", help="with the augmentation")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="assignments")
    options = parser.parse_args()
    config = train.settled(settings.override(PRESETS["cpu"], options.assignments))
    with train.keras_layers() if options.keras else contextlib.nullcontext():
        run = train.our_contenders(config, STEPS)[train.STEP if options.views else train.PLAIN]
        run()  # traces
        rounds = [profiled(run) for _ in range(ROUNDS)]
    least = {kind: min(found[kind] for found in rounds) / STEPS for kind in rounds[0]}
    for kind, milliseconds in sorted(least.items(), key=lambda pair: -pair[1])[:SHOWN]:
        print(f"{milliseconds:9.2f} ms  {kind}")


if __name__ == "__main__":
    main()
