"""A pushed SavedModel in this process, as TensorFlow Serving sees it: signatures by name, rows in, rows out."""

import contextlib
import dataclasses
import pathlib
import re
import time
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from components.serving import serving_folder, warm_up

# Rows the network takes at once: what a larger request needs in memory does not grow with it.
ROWS_AT_ONCE = 256
# With other callers waiting, as many as take about so long; at the beginning nothing is known of them.
TURN_SECONDS = 0.2
# The next rows may be pictures that take a thousand times as long to decode as the last ones.
ENCODED_ROWS_AT_ONCE = 8
_STACK = ("Graph execution error", "Detected at node", "<stack traces", "[[{{")
_ASSERTION = "assertion failed:"
_INIT_OP = "__saved_model_init_op"


class RejectedInputError(ValueError):
    """The model's own graph refused the input; the message is its reason in one line."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    Attributes:
        dtype: TensorFlow's name, such as "DT_STRING".
        shape: -1 for a free dimension.
        tensor_name: its name in the graph.
    """

    dtype: str
    shape: tuple[int, ...]
    tensor_name: str


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name, and what TensorFlow Serving calls the method."""

    inputs: Mapping[str, TensorInfo]
    outputs: Mapping[str, TensorInfo]
    method: str


class ServedModel:
    """A SavedModel loaded from a version folder.

    Args:
        path: the version folder, with `saved_model.pb` in it.

    Raises:
        ValueError: when the folder holds no SavedModel that can be loaded, whatever the loader says of it.
    """

    def __init__(self, path: pathlib.Path) -> None:
        try:
            self._loaded = tf.saved_model.load(str(path))
            stored = saved_model_pb2.SavedModel.FromString(
                (path / serving_folder.SAVED_MODEL_FILE).read_bytes()
            )
            self.signatures: dict[str, Signature] = {
                name: _signature(definition)
                for name, definition in stored.meta_graphs[0].signature_def.items()
                if name != _INIT_OP
            }
        except Exception as error:
            # TensorFlow parses the files as they are: damage in them comes out as any exception there is.
            raise ValueError(
                f"Cannot load a SavedModel from {path}: {reason(error)}. Give the folder of a pushed version."
            ) from error
        self.path = path

    def warm_up(self) -> None:
        """Runs the requests that the model brings along, so that the first real one finds everything built.

        Raises:
            ValueError: it cannot answer one of them, or they cannot be read. TensorFlow Serving refuses it, too.
        """
        for number, (name, inputs) in enumerate(warm_up.read(self.path)):
            try:
                self.call(name, inputs)
            except (KeyError, ValueError, TypeError, tf.errors.OpError) as error:
                raise ValueError(
                    f"{self.path} fails at its own warm-up request {number}: {reason(error)}"
                ) from error

    def call(
        self,
        signature: str,
        inputs: Mapping[str, np.ndarray],
        turn: Callable[[], contextlib.AbstractContextManager[None]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Runs a signature on any number of rows.

        Args:
            signature: one of `signatures`.
            inputs: for each of its inputs an array with as many rows; object arrays of bytes for strings.
            turn: what to hold while rows go through the network; let go and taken again every `TURN_SECONDS` or so.

        Returns:
            Its outputs by name, row for row.

        Raises:
            RejectedInputError: when the graph refuses the rows, such as bytes that are no image.
        """
        rows = max((len(values) for values in inputs.values()), default=0)
        parts: list[dict[str, np.ndarray]] = []
        most = ENCODED_ROWS_AT_ONCE if turn and self._takes_strings(signature) else ROWS_AT_ONCE
        start, size = 0, 1 if turn else most
        while start < rows or not parts:
            with contextlib.nullcontext() if turn is None else turn():
                began = time.monotonic()
                parts.append(
                    self._part(signature, {name: v[start : start + size] for name, v in inputs.items()})
                )
                took = time.monotonic() - began
            start += size
            if turn is not None:
                size = min(2 * size, most) if took < TURN_SECONDS / 2 else size
                size = max(size // 2, 1) if took > TURN_SECONDS else size
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _part(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = {name: tf.constant(values, self._dtype(signature, name)) for name, values in inputs.items()}
        try:
            outputs = self._loaded.signatures[signature](**tensors)
        except tf.errors.InvalidArgumentError as error:
            raise RejectedInputError(reason(error)) from error
        return {name: value.numpy() for name, value in outputs.items()}

    def _takes_strings(self, signature: str) -> bool:
        return any(info.dtype == "DT_STRING" for info in self.signatures[signature].inputs.values())

    def _dtype(self, signature: str, name: str) -> tf.DType:
        return tf.as_dtype(types_pb2.DataType.Value(self.signatures[signature].inputs[name].dtype))


def reason(error: Exception) -> str:
    """What TensorFlow says of an error in one line, without the graph's stack and the node's name."""
    text = error.message if isinstance(error, tf.errors.OpError) else str(error)
    lines = [line.strip() for line in text.splitlines()]
    said = next((line for line in lines if line and not line.startswith(_STACK)), type(error).__name__)
    if said.startswith(_ASSERTION):  # assertion failed: [a value] [another]
        return " ".join(re.findall(r"\[(.*?)\]", said))
    return said


def _signature(definition: meta_graph_pb2.SignatureDef) -> Signature:
    return Signature(
        inputs={name: _tensor_info(info) for name, info in sorted(definition.inputs.items())},
        outputs={name: _tensor_info(info) for name, info in sorted(definition.outputs.items())},
        method=definition.method_name,
    )


def _tensor_info(info: meta_graph_pb2.TensorInfo) -> TensorInfo:
    return TensorInfo(
        dtype=types_pb2.DataType.Name(info.dtype),
        shape=tuple(dimension.size for dimension in info.tensor_shape.dim),
        tensor_name=info.name,
    )
