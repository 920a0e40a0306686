"""The benchmark of the training step: what it counts is right, and it runs to its end."""

import argparse
import dataclasses
import json
import sys

import numpy as np
import pytest

from benchmarks import train
from pipeline.config import PRESETS
from tests.unit.trainer.conftest import SETTINGS, TINY
from trainer import networks
from trainer.architecture import RESNET10_NARROW, RESNET18
from trainer.byol.config import HeadConfig


def test_resnet18_costs_what_is_published():
    """0.555 GMAC forward at 32 pixels (kuangliu's CIFAR ResNet-18); 8.96 GFLOP a BYOL update."""
    assert train.forward_macs(RESNET18, 32) == pytest.approx(0.555e9, rel=2e-3)
    assert train.step_flops(RESNET18, HeadConfig(4096, 256), 32) == pytest.approx(8.96e9, rel=2e-3)


@pytest.mark.parametrize(
    ("encoder", "size"),
    [(TINY, 24), (RESNET10_NARROW, 32), (RESNET18, 24), (RESNET10_NARROW.for_side(128), 96)],
)
def test_the_products_counted_are_those_of_the_network(encoder, size):
    """Against the shapes that Keras gives every convolution."""
    network = networks.build_encoder(encoder, np.full(3, 0.5), np.full(3, 0.25), 0)
    shape, macs = {}, 0
    shape[network.input.name] = (1, size, size, 3)
    for layer in network.layers[1:]:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        own = [shape[tensor.name] for tensor in inputs]
        shape[layer.output.name] = layer.compute_output_shape(own if len(own) > 1 else own[0])
        if "Conv" in type(layer).__name__:
            _, height, width, channels = shape[layer.output.name]
            macs += height * width * channels * layer.kernel.shape[0] * layer.kernel.shape[1] * own[0][3]
    assert train.forward_macs(encoder, size) == macs


def test_the_benchmark_runs_and_says_why_pytorch_is_missing(monkeypatch, capsys):
    """Tiny, and without XLA, which compiles for long; the peer's interpreter cannot be started."""
    config = dataclasses.replace(PRESETS["demo"], encoder=TINY, pretraining=SETTINGS)
    monkeypatch.setitem(PRESETS, "demo", config)
    arguments = ["train", "--preset", "demo", "--steps", "2", "--rounds", "2"]
    monkeypatch.setattr(
        sys, "argv", [*arguments, "--torch", "/no/such/python", "--skip", "XLA", "--skip", "Keras"]
    )
    train.main()
    lines = capsys.readouterr().out.splitlines()
    assert any("PyTorch skipped: /no/such/python" in line and "--torch" in line for line in lines)
    found = json.loads(lines[-1])
    rates = found["images_per_second"]
    assert set(rates) == {train.STEP, train.PLAIN, train.VIEWS}
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())
    assert found["times_as_long"][train.PLAIN] == found["times_the_cpu_time"][train.PLAIN] == 1.0
    assert 0 < found["times_the_cpu_time"][train.VIEWS] < 1
    assert found["matrix_flops"] > 1e8
    assert found["flops_an_image"] == train.step_flops(TINY, SETTINGS.head, 32)


def test_a_preset_that_does_not_exist_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train", "--preset", "tpu"])
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        train.main()
    assert "invalid choice: 'tpu'" in capsys.readouterr().err
