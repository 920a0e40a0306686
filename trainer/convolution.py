"""Convolution of small maps as one matrix product where TensorFlow computes without XLA; Keras' own everywhere else."""

import keras
import numpy as np
from keras import ops

from trainer import representations


@keras.saving.register_keras_serializable(package="byol")
class Convolution(keras.layers.Conv2D):
    """Keras' convolution with "same" padding and the same numbers, in less time on maps no larger than the kernel.

    A 3x3 kernel on a 2x2 map meets padding with five of its nine taps, and a processor's convolution computes them all
    the same, forward and backward. Written as a matrix from every input position to every output position, what meets
    padding is not there (docs/decisions/0035-convolutions.md).

    Input and output: [batch, height, width, channels] float32 or bfloat16. What is saved is a plain Keras layer again
    (`networks.as_float32`).
    """

    def call(self, inputs):
        """Convolves: [batch, h, w, in] -> [batch, ceil(h / stride), ceil(w / stride), filters]."""
        if self._is_small(inputs):
            return self._product(inputs)
        return super().call(inputs)

    def _is_small(self, inputs) -> bool:
        """Whether the matrix has no more products than the convolution: one for each pair of positions, against one
        for each tap and output position.
        """
        side = inputs.shape[1:3]
        return (
            keras.backend.backend() == "tensorflow"
            and not representations.compiles_with_xla()
            and None not in side
            and side[0] * side[1] <= self.kernel_size[0] * self.kernel_size[1]
            and self.kernel_size != (1, 1)
        )

    def _product(self, inputs):
        height, width, channels = inputs.shape[1:]
        taps, outputs = taps_between((height, width), self.kernel_size, self.strides)
        kernel = ops.reshape(ops.convert_to_tensor(self.kernel), (-1, channels, self.filters))
        kernel = ops.pad(kernel, ((0, 1), (0, 0), (0, 0)))
        matrix = ops.transpose(ops.take(kernel, taps, axis=0), (0, 2, 1, 3))
        matrix = ops.reshape(matrix, (height * width * channels, -1))
        product = ops.matmul(ops.reshape(inputs, (-1, height * width * channels)), matrix)
        return ops.reshape(product, (-1, *outputs, self.filters))


def taps_between(side, kernel, strides) -> tuple[np.ndarray, tuple[int, int]]:
    """Which tap of a kernel goes from an input position to an output position, under "same" padding.

    Args:
        side: height and width of the input.
        kernel, strides: height and width of each.

    Returns:
        [h * w, ho * wo] int32: the tap's index in the kernel row by row; the number of taps where none does. And the
        output's height and width.
    """
    found, sides = [], []
    for size, taps, stride in zip(side, kernel, strides, strict=True):
        outputs = -(-size // stride)
        before = max((outputs - 1) * stride + taps - size, 0) // 2
        tap = np.arange(size)[:, None] - (np.arange(outputs)[None, :] * stride - before)
        found.append(np.where((tap >= 0) & (tap < taps), tap, -1))
        sides.append(outputs)
    rows, columns = found[0][:, None, :, None], found[1][None, :, None, :]
    taps = np.where((rows < 0) | (columns < 0), kernel[0] * kernel[1], rows * kernel[1] + columns)
    return taps.reshape(side[0] * side[1], -1).astype(np.int32), (sides[0], sides[1])
