"""Compiles the real training program for a device that need not be there, and counts what a step of it does.

    .venv/bin/python -m benchmarks.compiled --preset gpu             this machine's CPU
    .venv/bin/python -m benchmarks.compiled --preset gpu --target v5e  a TPU chip, v5e-4 four, v6e another: needs libtpu
    .venv/bin/python -m benchmarks.compiled --preset gpu --target h100 --target-config FILE     needs JAX's CUDA plugin

prints kernels, gigabytes and operations of one update, the memory of the program, and what the device's rates allow.
The program is the scan of `trainer/byol/jax_epoch.py`. A kernel is an instruction of the compiled loop;
its bytes are those of its operands and results, so what stays in a cache is counted as moved. Nothing is run, so
nothing is timed. FILE is the device's description as openxla's text proto of a target config.
"""

import argparse
import dataclasses
import math
import os
import pathlib
import re
import sys
import unittest.mock
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # libtpu would ask a cloud which TPU this is

from trainer.byol.jax_process import NoTensorFlow

if __name__ == "__main__":
    sys.meta_path.insert(0, NoTensorFlow())

import jax
import numpy as np

from benchmarks.train import step_flops
from pipeline.config import PRESETS, PipelineConfig, chosen_preset
from trainer.architecture import BASE_SIDE
from trainer.byol import jax_epoch, pretraining
from trainer.byol.pretraining import PretrainingImages

# A loop of fewer steps may be unrolled.
STEPS = 8
_BYTES = {"pred": 1, "s4": 1, "u4": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8, "token": 0}
_ARRAY = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([\w\-]+)\((.*)$")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}


@dataclasses.dataclass(frozen=True)
class Device:
    """What a program is compiled for.

    Attributes:
        topology: JAX's name of it; "" for this machine's CPU.
        devices: how many of its devices the batch is divided among.
        operations: a second, of products in bfloat16, as its maker says; 0 where nobody says.
        bytes: a second, of its memory.
    """

    topology: str
    devices: int = 1
    operations: float = 0.0
    bytes: float = 0.0


# Rates of NVIDIA's data sheet (H100 SXM, dense) and Google's documentation of TPU v5e and v6e.
TARGETS = {
    "cpu": Device(""),
    "v5e": Device("v5e:2x2", 1, 197e12, 819e9),
    "v5e-4": Device("v5e:2x2", 4, 197e12, 819e9),
    "v6e": Device("v6e:2x2", 1, 918e12, 1640e9),
    "h100": Device("h100", 1, 989e12, 3350e9),
}


@dataclasses.dataclass(frozen=True)
class Counts:
    """Of one update: kernels, and the bytes of their operands and results."""

    kernels: int
    bytes: int


def lowered(config: PipelineConfig, devices: list[Any], side: int = BASE_SIDE) -> Any:
    """The scan over STEPS updates of the preset's model, lowered for these devices; no array is put there."""
    pretrain = config.pretraining
    few = dataclasses.replace(
        pretrain, epochs=1, optimizer=dataclasses.replace(pretrain.optimizer, warmup_steps=0)
    )
    shape = (pretrain.batch_size, side, side, 3)
    data = PretrainingImages(
        np.zeros(shape, np.uint8), np.full(3, 0.5, np.float32), np.full(3, 0.25, np.float32)
    )
    model = pretraining.build_model(few, config.encoder, data)
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))

    def spread(*axes: str) -> jax.sharding.NamedSharding:
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    def argument(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=spread())

    groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)
    state = tuple([argument(v.value.shape, v.value.dtype) for v in group] for group in groups)
    order = argument((STEPS, pretrain.batch_size), np.int32)

    def divided(batch: Any) -> Any:
        return jax.lax.with_sharding_constraint(batch, spread("batch"))

    with unittest.mock.patch.object(jax_epoch, "_divided", divided):
        scan = jax.jit(jax_epoch.scanned(model), donate_argnums=0)
        return scan.lower(state, argument(shape, np.uint8), order)


def size(kind: str) -> int:
    """Bytes of an HLO type, such as "f32[8,3]{1,0}" or a tuple of them."""
    return sum(
        _BYTES.get(name, 1) * math.prod(int(n) for n in dims.split(",") if n)
        for name, dims in _ARRAY.findall(kind)
    )


def computations(text: str) -> dict[str, list[tuple[str, str, str, str]]]:
    """The instructions of each computation of an HLO module's text: (name, type, operation, operands and the rest)."""
    found: dict[str, list[tuple[str, str, str, str]]] = {}
    present: list[tuple[str, str, str, str]] = []
    for line in text.splitlines():
        if opening := _COMPUTATION.match(line):
            present = found.setdefault(opening[1], [])
        elif instruction := _INSTRUCTION.match(line):
            present.append((instruction[1], instruction[2], instruction[3], instruction[4]))
    return found


def count(text: str) -> Counts:
    """Counts the longest loop's body in the text of a compiled HLO module.

    Raises:
        ValueError: when it has no loop.
    """
    found = computations(text)
    bodies = re.findall(r"\bbody=%?([\w.\-]+)", text)
    if not bodies:
        raise ValueError("The program has no loop; expected the scan over the updates.")
    body = max((found[name] for name in bodies), key=len)
    sizes = {name: size(kind) for name, kind, _, _ in body}
    kernels = moved = 0
    for name, _, operation, rest in body:
        if operation in _FREE:
            continue
        operands = {other for other in re.findall(r"%([\w.\-]+)", rest) if other in sizes}
        kernels += 1
        moved += sizes[name] + sum(sizes[other] for other in operands)
    return Counts(kernels, moved)


def devices_of(target: Device, description: str) -> list[Any]:
    """The devices to compile for, from JAX's own CPU or from a topology that is described to its compiler."""
    if not target.topology:
        return jax.devices("cpu")[:1]
    from jax.experimental import topologies

    if target.topology == "h100":
        if not description:
            raise ValueError("--target h100 needs --target-config FILE, the device's description as text.")
        found = topologies.get_topology_desc(
            platform="cuda", topology_name="h100", topology="1x1x1", target_config=description
        )
    else:
        found = topologies.get_topology_desc(platform="tpu", topology_name=target.topology)
    return list(found.devices)[: target.devices]


def report(config: PipelineConfig, target: Device, compiled: Any) -> list[str]:
    """What is printed of a compiled program."""
    pretrain = config.pretraining
    counts, memory = count(compiled.as_text()), compiled.memory_analysis()
    image = step_flops(config.encoder, pretrain.head, pretrain.view_1.size)
    operations = image * pretrain.batch_size / target.devices
    lines = [
        f"{'kernels a step':24}{counts.kernels:12,}",
        f"{'GB a step':24}{counts.bytes / 1e9:12.2f}",
        f"{'TFLOP a step':24}{operations / 1e12:12.3f}",
    ]
    if memory is not None:
        held = memory.temp_size_in_bytes + memory.argument_size_in_bytes
        lines.append(f"{'GB of memory':24}{held / 1e9:12.2f}")
    if target.bytes:
        seconds = max(operations / target.operations, counts.bytes / target.bytes)
        limit = "memory" if counts.bytes / target.bytes >= seconds else "products"
        rate = pretrain.batch_size / seconds
        lines.append(
            f"{'images/s at the most':24}{rate:12,.0f}   {limit} would be the limit; nothing was run"
        )
    return lines


def main() -> None:
    """Compiles, counts and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=PRESETS, default="gpu")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="assignments")
    parser.add_argument("--target", choices=TARGETS, default="cpu")
    parser.add_argument("--target-config", type=pathlib.Path, help="the H100's description; only for h100")
    parser.add_argument("--side", type=int, default=BASE_SIDE, help="of the pictures, in pixels")
    given = parser.parse_args()
    config = chosen_preset(given.preset, given.assignments, given.side)
    target = TARGETS[given.target]
    try:
        devices = devices_of(target, given.target_config.read_text() if given.target_config else "")
    except (ValueError, RuntimeError, OSError, NotImplementedError) as error:
        parser.error(f"cannot compile for {given.target}: {str(error).splitlines()[0]}")
    compiled = lowered(config, devices, given.side).compile()
    print(f"{given.preset} for {given.target}, pictures of {given.side} pixels, JAX {jax.__version__}")
    print("\n".join(report(config, target, compiled)))


if __name__ == "__main__":
    main()
