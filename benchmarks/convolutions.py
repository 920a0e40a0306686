"""The CPU time of the `cpu` preset's 3x3 convolutions alone: in TensorFlow, or in PyTorch where TensorFlow is missing.

    TF_NUM_INTRAOP_THREADS=1 TF_NUM_INTEROP_THREADS=1 OMP_NUM_THREADS=1 PYTHON benchmarks/convolutions.py

Each interpreter has one of the two; both call oneDNN, of different age. It imports nothing of this project. Printed are
milliseconds forward, by the input and by the filter: the least of the calls, and the sum over all.
"""

import importlib.util
import time

BATCH, CALLS = 128, 12
# Side of the input, its channels, the output's channels, the stride: one of each kind in the network.
SHAPES = [
    (12, 32, 32, 1),
    (12, 32, 64, 2),
    (6, 64, 64, 1),
    (6, 64, 128, 2),
    (3, 128, 128, 1),
    (3, 128, 256, 2),
    (2, 256, 256, 1),
]


def least(run):
    """Milliseconds of CPU time of the fastest call."""
    run()
    found = []
    for _ in range(CALLS):
        started = time.process_time()
        run()
        found.append(time.process_time() - started)
    return 1e3 * min(found)


def in_tensorflow(side, inputs, outputs, stride):
    """The three passes, channels last."""
    import tensorflow as tf

    x, kernel = tf.random.normal((BATCH, side, side, inputs)), tf.random.normal((3, 3, inputs, outputs))
    y = tf.nn.conv2d(x, kernel, stride, "SAME")
    settings = {"strides": [1, stride, stride, 1], "padding": "SAME"}
    raw = tf.raw_ops
    return (
        lambda: raw.Conv2D(input=x, filter=kernel, **settings),
        lambda: raw.Conv2DBackpropInput(input_sizes=x.shape, filter=kernel, out_backprop=y, **settings),
        lambda: raw.Conv2DBackpropFilter(input=x, filter_sizes=kernel.shape, out_backprop=y, **settings),
    )


def in_torch(side, inputs, outputs, stride):
    """The three passes, channels last."""
    import torch

    last = torch.channels_last
    x = torch.randn(BATCH, inputs, side, side).to(memory_format=last)
    kernel = torch.randn(outputs, inputs, 3, 3).to(memory_format=last)
    y = torch.nn.functional.conv2d(x, kernel, stride=stride, padding=1)

    def backward(by_input, by_filter):
        convolution = ([stride, stride], [1, 1], [1, 1], False, [0, 0], 1)
        mask = [by_input, by_filter, False]
        return torch.ops.aten.convolution_backward(y, x, kernel, None, *convolution, mask)

    return (
        lambda: torch.nn.functional.conv2d(x, kernel, stride=stride, padding=1),
        lambda: backward(True, False),
        lambda: backward(False, True),
    )


def main():
    """Measures and prints."""
    passes = in_tensorflow if importlib.util.find_spec("tensorflow") else in_torch
    rows = [[least(run) for run in passes(*shape)] for shape in SHAPES]
    for shape, row in zip(SHAPES, rows, strict=True):
        print(shape, " ".join(f"{value:7.2f}" for value in row))
    print(f"{passes.__name__}: {sum(map(sum, rows)):.1f} ms")


if __name__ == "__main__":
    main()
