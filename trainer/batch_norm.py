"""Batch norm by one fused operation where TensorFlow computes without XLA; Keras' own everywhere else."""

import keras

from trainer import representations


@keras.saving.register_keras_serializable(package="byol")
class BatchNorm(keras.layers.BatchNormalization):
    """Keras' batch norm with the same numbers in less time: on TensorFlow Keras makes a dozen passes over its input,
    forward and backward, where one operation each does it (docs/decisions/0032-batch-norm.md).

    Input and output: [batch, ..., channels] float32 or bfloat16. In inference it is Keras' own; what is saved is a
    plain Keras layer again (`networks.as_float32`).
    """

    def call(self, inputs, training=None, mask=None):
        """Normalises by the batch's mean and variance when `training`, by the moments otherwise."""
        if training and self._can_fuse(inputs):
            return self._fused(inputs)
        return super().call(inputs, training=training, mask=mask)

    def _can_fuse(self, inputs) -> bool:
        """XLA fuses by itself, and the operation knows nothing of other replicas."""
        return (
            keras.backend.backend() == "tensorflow"
            and self.trainable
            and not self.synchronized
            and len(inputs.shape) == 4
            and not representations.compiles_with_xla()
        )

    def _fused(self, inputs):
        import tensorflow as tf

        normalised = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=[],
            variance=[],
            epsilon=self.epsilon,
        )
        # Its variance is the unbiased one; Keras' moments, like the reference's, are of the biased one.
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], "float32")
        variance = normalised.batch_variance * ((count - 1.0) / count)
        for moment, value in ((self.moving_mean, normalised.batch_mean), (self.moving_variance, variance)):
            moment.assign(moment * self.momentum + value * (1.0 - self.momentum))
        return normalised.y
