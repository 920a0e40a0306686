"""Images a second of the compiled training step on the present device, beside plain PyTorch, in one run.

    .venv/bin/python -m benchmarks.train                         the `cpu` preset's network
    .venv/bin/python -m benchmarks.train --preset gpu --set pretraining.batch_size=64 --steps 3
    .venv/bin/python -m benchmarks.train --side 96 --skip XLA --skip Keras   the same preset for pictures of 96 pixels
    .venv/bin/python -m benchmarks.train --torch /path/to/python an interpreter that has torch, and lightly if it may;
                                                             BYOL_TORCH_PYTHON may name it too
    KERAS_BACKEND=jax .venv/bin/python -m benchmarks.train --preset gpu   a machine without TensorFlow

The contenders take turns; given are the median over the rounds and the range. A busy machine still slows threads that
wait for each other more than threads that do not, so there is the CPU time as well, which on one thread depends on
neither:

    OMP_NUM_THREADS=1 TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 .venv/bin/python -m benchmarks.train

PyTorch gets its views ready-made: its peer is our step without augmentation. The share of the limit is of the
rate that this backend's own matrix product reaches on this device. The last line is the whole measurement as JSON.
"""

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import unittest.mock
from collections.abc import Callable, Iterator, Sequence
from typing import IO, cast

import keras
import numpy as np
from keras import ops

from pipeline.config import PRESETS, PipelineConfig, chosen_preset
from trainer import representations
from trainer.architecture import BASE_SIDE, EncoderConfig
from trainer.batch_norm import BatchNorm
from trainer.byol import augmentations, choice, pretraining
from trainer.byol.byol import BYOL
from trainer.byol.config import HeadConfig, PretrainingConfig
from trainer.byol.pretraining import PretrainingImages
from trainer.convolution import Convolution

# Wall time and CPU time of the process that computes.
Seconds = tuple[float, float]
STEP, PLAIN, VIEWS, OTHER = (
    "our step",
    "our step without augmentation",
    "our augmentation alone",
    "our step, ",
)
_MEAN, _STD = [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]


def forward_macs(encoder: EncoderConfig, size: int) -> int:
    """Multiply-accumulates of one image's forward pass through the encoder; convolutions only, as is the custom."""
    side, macs, inputs = size, 0, 3
    for width, stride in encoder.stem:
        side = -(-side // stride)
        macs += side**2 * 9 * inputs * width
        inputs = width
    for stage, (width, blocks) in enumerate(zip(encoder.widths, encoder.blocks, strict=True)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            side = -(-side // stride)
            macs += side**2 * 9 * width * (inputs + width)
            if stride != 1 or inputs != width:
                macs += side**2 * inputs * width
            inputs = width
    return macs


def step_flops(encoder: EncoderConfig, head: HeadConfig, size: int) -> int:
    """Operations of one BYOL update for each image: 8.96e9 for ResNet-18 at 32 pixels with the paper's heads.

    Two views; online forward once and backward twice the forward, target forward once; two operations a product.
    """
    projector = encoder.widths[-1] * head.hidden_dim + head.hidden_dim * head.output_dim
    predictor = 2 * head.output_dim * head.hidden_dim
    target = forward_macs(encoder, size) + projector
    return 2 * 2 * (3 * (target + predictor) + target)


class _ReadyViews(BYOL):
    """BYOL whose views cost nothing: the image and its negative, which no compiler can take for the same."""

    def call(self, images, training=False):
        size = self.views[0].size
        view = ops.cast(images[:, :size, :size], "float32") / 255.0
        return self.predict_views(view, 1.0 - view, training=training)


class _Views(keras.Model):
    """Both views of a batch, reduced to a number an image, so that nothing but them is timed."""

    def __init__(self, views):
        super().__init__(name="views")
        self.views = views
        self.seed_generator = keras.random.SeedGenerator(0)
        self.built = True

    def call(self, images):
        batch = ops.shape(images)[0]
        views = [
            augmentations.make_view(images, augmentations.draw(batch, self.seed_generator), config)
            for config in self.views
        ]
        return sum(ops.mean(view, axis=(1, 2, 3)) for view in views)


class _Products(keras.Model):
    """A chain of products of square matrices; the input only says when."""

    def __init__(self, side, count, dtype):
        super().__init__(name="products", dtype="float32")
        self.side, self.count, self.low = side, count, dtype
        # Of unit norm, about: the products neither vanish nor overflow.
        values = np.random.default_rng(0).normal(size=(side, side)) / np.sqrt(side)
        self.matrix = self.add_weight(shape=(side, side), initializer="zeros", trainable=False)
        self.matrix.assign(values.astype(np.float32))
        self.built = True

    def call(self, x):
        matrix = ops.cast(self.matrix, self.low)
        product = matrix * ops.cast(ops.mean(x), self.low)
        for _ in range(self.count):
            product = ops.matmul(product, matrix)
        return ops.cast(ops.mean(product, axis=0, keepdims=True), "float32")


def matrix_rate(precision: str, rounds: int) -> float:
    """Operations a second of this backend's matrix product on this device, the best of `rounds`."""
    side, count = (8192, 16) if accelerated() else (1024, 8)
    model = _Products(side, count, "bfloat16" if precision == "mixed_bfloat16" else "float32")
    model.compile(jit_compile=representations.compiles_with_xla())
    one = np.ones((1, 1), np.float32)
    model.predict_on_batch(one)
    seconds, _ = min(_timed(lambda: model.predict_on_batch(one)) for _ in range(rounds))
    return 2.0 * side**3 * count / seconds


def accelerated() -> bool:
    """Whether the present backend computes on something other than the CPU."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() != "cpu"
    return representations.compiles_with_xla()


class TorchWorker:
    """`torch_byol` in an interpreter of its own, asked line by line, so that its rounds alternate with ours.

    Raises:
        OSError, RuntimeError: when the interpreter cannot be started or has no torch; the message says why.
    """

    def __init__(self, python: str, request: dict) -> None:
        script = pathlib.Path(__file__).with_name("torch_byol.py")
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, open as long as the worker runs
        self.process = subprocess.Popen(
            [python, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )
        self.requests = cast(IO[str], self.process.stdin)
        self.answers = cast(IO[str], self.process.stdout)
        self.about = self.ask({"do": "build"} | request)

    def ask(self, request: dict) -> dict:
        """Sends one request and waits for its answer."""
        line = ""
        with contextlib.suppress(BrokenPipeError):
            self.requests.write(json.dumps(request) + "\n")
            self.requests.flush()
            line = self.answers.readline()
        if not line:
            self.close()
            self.errors.seek(0)
            raise RuntimeError((self.errors.read().strip() or "it ended without a word").splitlines()[-1])
        return json.loads(line)

    def close(self) -> None:
        """Ends the worker."""
        with contextlib.suppress(BrokenPipeError):
            self.requests.close()
        self.process.wait()


def our_contenders(
    config: PipelineConfig, steps: int, side: int = BASE_SIDE
) -> dict[str, Callable[[], Seconds]]:
    """What is timed of ours: a function that runs `steps` steps and returns their seconds, for each name."""
    pretrain = config.pretraining
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps * pretrain.batch_size, side, side, 3), dtype=np.uint8)
    data = PretrainingImages(images, np.asarray(_MEAN, np.float32), np.asarray(_STD, np.float32))
    # The schedules' horizon does not matter here; a warm-up longer than these few steps would be refused.
    few = dataclasses.replace(
        pretrain, epochs=1, optimizer=dataclasses.replace(pretrain.optimizer, warmup_steps=0)
    )
    views = _Views((few.view_1, few.view_2))
    views.compile(jit_compile=representations.compiles_with_xla())
    found = {
        STEP: _fit(pretraining.build_model(few, config.encoder, data), images, few),
        PLAIN: _fit(pretraining.build_model(few, config.encoder, data, _ReadyViews), images, few),
        VIEWS: lambda: _timed(lambda: views.predict(images, batch_size=few.batch_size, verbose=0)),
    }
    if keras.backend.backend() == "tensorflow":
        other = pretraining.build_model(few, config.encoder, data)
        xla = not representations.compiles_with_xla()
        other.compile(optimizer=other.optimizer, jit_compile=xla, steps_per_execution=few.steps_per_execution)
        found[OTHER + ("with XLA" if xla else "without XLA")] = _fit(other, images, few)
        with_keras = _fit(pretraining.build_model(few, config.encoder, data), images, few)
        found[OTHER + "Keras' own layers"] = keras_layers()(with_keras)
    return found


@contextlib.contextmanager
def keras_layers() -> Iterator[None]:
    """Models traced inside run Keras' own batch norm and convolution instead of ours."""
    with (
        unittest.mock.patch.object(BatchNorm, "_can_fuse", return_value=False),
        unittest.mock.patch.object(Convolution, "_is_small", return_value=False),
    ):
        yield


def _fit(model: BYOL, images: np.ndarray, config: PretrainingConfig) -> Callable[[], Seconds]:
    def run() -> Seconds:
        return _timed(lambda: model.fit(images, batch_size=config.batch_size, shuffle=False, verbose=0))

    return run


def torch_contenders(
    config: PipelineConfig, steps: int, python: str
) -> tuple[dict[str, Callable[[], Seconds]], dict, TorchWorker | None]:
    """PyTorch's contenders, what is known of it, and the worker to close; says why where there is none."""
    network = dataclasses.asdict(config.encoder) | dataclasses.asdict(config.pretraining.head)
    request = {
        "network": network | {"mean": _MEAN, "std": _STD},
        "batch": config.pretraining.batch_size,
        "size": config.pretraining.view_1.size,
        "precision": config.pretraining.precision,
    }
    try:
        worker = TorchWorker(python, request)
    except (OSError, RuntimeError) as error:
        print(f"PyTorch skipped: {python}: {error}. Give an interpreter that has torch by --torch.")
        return {}, {"skipped": str(error)}, None
    for name, reason in worker.about["missing"].items():
        print(f"{name} skipped: {reason}")

    def timer(name: str) -> Callable[[], Seconds]:
        return lambda: worker.ask({"do": "time", "contender": name, "steps": steps})["seconds"]

    return {name: timer(name) for name in worker.about["contenders"]}, worker.about, worker


def rounds_of(contenders: dict[str, Callable[[], Seconds]], rounds: int) -> Iterator[dict[str, Seconds]]:
    """Yields each round's seconds by contender; an untimed round before the first compiles and warms up."""
    for round_number in range(rounds + 1):
        seconds = {name: run() for name, run in contenders.items()}
        if round_number > 0:
            yield seconds


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=list(PRESETS), default="cpu")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="assignments")
    parser.add_argument("--steps", type=int, default=10, help="steps of each contender in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--torch",
        default=os.environ.get("BYOL_TORCH_PYTHON", sys.executable),
        metavar="PYTHON",
        help="has torch installed; default: BYOL_TORCH_PYTHON, or this interpreter",
    )
    parser.add_argument(
        "--skip", action="append", default=[], help="leave out contenders with this in their name"
    )
    parser.add_argument("--side", type=int, default=BASE_SIDE, help="of the pictures, in pixels")
    options = parser.parse_args()
    config = chosen_preset(options.preset, options.assignments, options.side)
    measured = measure(config, options.steps, options.rounds, options.torch, options.skip, options.side)
    print(json.dumps({"preset": options.preset, "set": options.assignments, "side": options.side} | measured))


def measure(
    config: PipelineConfig,
    steps: int,
    rounds: int,
    python: str,
    skip: Sequence[str] = (),
    side: int = BASE_SIDE,
) -> dict:
    """Runs all contenders in turn, prints a table and returns what it holds."""
    config = settled(config)
    pretrain = config.pretraining
    flops = step_flops(config.encoder, pretrain.head, pretrain.view_1.size)
    peers, about, worker = torch_contenders(config, steps, python)
    contenders = our_contenders(config, steps, side) | peers
    contenders = {name: run for name, run in contenders.items() if not any(part in name for part in skip)}
    try:
        seconds = list(rounds_of(contenders, rounds))
    finally:
        if worker is not None:
            worker.close()
    limit = matrix_rate(pretrain.precision, rounds)
    rates = {name: [steps * pretrain.batch_size / each[name][0] for each in seconds] for name in contenders}
    wall, cpu = (
        {name: statistics.median(each[name][k] / each[PLAIN][k] for each in seconds) for name in contenders}
        for k in (0, 1)
    )
    where = f"{device()}, {os.cpu_count()} cores, {keras.backend.backend()}, Keras {keras.__version__}"
    print(f"{where}; batch {pretrain.batch_size}, {pretrain.view_1.size} pixels, {pretrain.precision}")
    print(f"{flops / 1e9:.3f} GFLOP an image; matrix product {limit / 1e9:.1f} GFLOP/s")
    print(
        f"{'':<32}{'images/s':>10}{'range':>16}{'of the limit':>14}{'times as long':>15}{'in CPU time':>13}"
    )
    for name, values in rates.items():
        middle = statistics.median(values)
        share = "" if name == VIEWS else f"{middle * flops / limit:.1%}"
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"{name:<32}{middle:10.0f}{spread:>16}{share:>14}{wall[name]:15.2f}{cpu[name]:13.2f}")
    print(f"(times as long: as {PLAIN}, the median of the rounds)")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{peak / 1e9:.2f} GB of memory at the most, libraries and all contenders included")
    return {
        "device": where,
        "torch": about,
        "flops_an_image": flops,
        "matrix_flops": round(limit),
        "peak_bytes": peak,
        "images_per_second": {name: [round(v, 1) for v in values] for name, values in rates.items()},
        "times_as_long": {name: round(ratio, 3) for name, ratio in wall.items()},
        "times_the_cpu_time": {name: round(ratio, 3) for name, ratio in cpu.items()},
    }


def settled(config: PipelineConfig) -> PipelineConfig:
    """The same settings with the precision that "auto" means here."""
    pretraining_ = choice.settled(config.pretraining, keras.backend.backend())
    return dataclasses.replace(config, pretraining=pretraining_)


def device() -> str:
    """What computes, in words."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.devices()[0].device_kind if accelerated() else _processor()
    if not accelerated():
        return _processor()
    import tensorflow as tf

    gpu = tf.config.list_physical_devices("GPU")[0]
    return tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)


def _processor() -> str:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _timed(function: Callable[[], object]) -> Seconds:
    started, spent = time.perf_counter(), time.process_time()
    function()
    return time.perf_counter() - started, time.process_time() - spent


if __name__ == "__main__":
    main()
