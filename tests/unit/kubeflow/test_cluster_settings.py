"""The settings that come with the project, and slices that no step can take."""

import pathlib

import pytest

from kubeflow import config
from kubeflow.config import Step

FOLDER = pathlib.Path(config.__file__).parent / "settings"


def test_gpu_and_tpu_settings_load_and_are_for_kubernetes():
    found = {path.stem: config.load(path, []) for path in FOLDER.glob("*.yaml")}
    assert found.keys() == {"gpu", "tpu"}
    for name, cluster in found.items():
        config.check_platform(cluster, vertex=False)
        steps = cluster.steps
        assert (steps.pretrain.accelerators, steps.data.accelerators) == (4, 0)
        device = steps.pretrain.accelerator
        assert device == {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}[name]
        assert [taint.key for taint in steps.pretrain.tolerations] == [device]
        # The probe is TensorFlow's, which has no code for TPUs.
        assert steps.probe.accelerator == ("nvidia.com/gpu" if name == "gpu" else "")


@pytest.mark.parametrize(
    ("topology", "chips", "fine"),
    [
        ("2x2", 4, True),
        ("2x4", 8, True),
        ("1x1", 1, True),
        ("4x4", 4, False),
        ("2x2x2", 4, False),
        ("big", 4, False),
    ],
)
def test_a_slice_is_one_host(topology, chips, fine):
    def make():
        return Step(
            accelerator="google.com/tpu",
            accelerators=chips,
            node_selector=(("cloud.google.com/gke-tpu-topology", topology),),
        )

    if fine:
        assert make().accelerators == chips
        return
    with pytest.raises(
        ValueError, match=f"topology '{topology}' has .* a step asks for {chips}: a step is one pod"
    ):
        make()
