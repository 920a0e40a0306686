"""The locks fit together: an accelerator's libraries are installed over the current lane's environment."""

import pathlib
import re

import pytest
from packaging.markers import Marker
from packaging.version import Version

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "requirements"
PACKAGE = re.compile(
    r"^([a-z0-9.-]+)==(\S+)(?: ; (.+?))? \\\n((?: +--hash=sha256:[0-9a-f]{64}.*\n)+)", re.MULTILINE
)


def pins(name, python):
    """Version of each package of a lock on that Python, on Linux."""
    text = (FOLDER / f"{name}.lock").read_text()
    found = PACKAGE.findall(text)
    assert len(found) == len(re.findall(r"^[a-z0-9.-]+==", text, re.MULTILINE))  # each has a hash
    system = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    return {
        package: version
        for package, version, marker, _ in found
        if not marker or Marker(marker).evaluate(system)
    }


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("name", ["cuda", "tpu"])
def test_what_is_installed_over_the_lane_changes_none_of_its_packages(name, python):
    lane, accelerator = pins("current", python), pins(name, python)
    both = lane.keys() & accelerator.keys()
    assert {"jax", "jaxlib", "numpy"} <= both
    assert {package: accelerator[package] for package in both} == {package: lane[package] for package in both}


def test_the_plugins_are_those_of_the_lane_s_jax():
    """JAX ignores a plugin of another release, and trains on the CPU."""
    lane, cuda, tpu = (pins(name, "3.13") for name in ("current", "cuda", "tpu"))
    assert cuda["jax-cuda12-plugin"] == cuda["jax-cuda12-pjrt"] == lane["jax"] == lane["jaxlib"]
    assert "libtpu" in tpu
    assert not any(package.startswith("nvidia-") for package in tpu)
    # One copy of CUDA for TensorFlow and JAX, as new as both were built for.
    assert {package.rpartition("-")[2] for package in cuda if package.startswith("nvidia-")} == {"cu12"}
    assert Version(cuda["nvidia-cudnn-cu12"]) >= Version("9.8")


def test_the_image_and_its_script_know_the_variants_that_have_a_lock():
    project = FOLDER.parent
    for path in ("Dockerfile", "requirements/make_env.sh", "requirements/lock.sh"):
        assert re.search(r"cuda \| tpu\)|for name in cuda tpu", (project / path).read_text()), path
    for name in ("cuda", "tpu"):
        assert (FOLDER / f"{name}.in").read_text().splitlines()[1] == "-c current.lock"
