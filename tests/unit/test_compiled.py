"""What `benchmarks.compiled` counts, and that the program does not grow unnoticed; nothing is compiled here."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
pytest.importorskip("jax")

PROGRAM = """
import json, sys
from benchmarks import compiled
from trainer.byol.jax_process import NoTensorFlow
sys.meta_path.insert(0, NoTensorFlow())
from pipeline.config import PRESETS
from trainer import settings

given = ["encoder.widths=(8,16)", "encoder.blocks=(1,1)", "pretraining.batch_size=64"]
given += ["pretraining.head.hidden_dim=16", "pretraining.head.output_dim=8"]
config = settings.override(PRESETS["gpu"], given)
program = compiled.lowered(config, compiled.devices_of(compiled.TARGETS["cpu"], ""))
cost = program.cost_analysis()
cost = cost[0] if isinstance(cost, list) else cost
found = {"bytes": cost["bytes accessed"], "flops": cost["flops"]}
print(json.dumps(found | {"operations": program.as_text().count(" = stablehlo.")}))
"""
# A tenth above what JAX 0.4.34 gives: 4,434 operations, 2.04 GB and 2.44 GFLOP.
BOUNDS = {"operations": 4900, "bytes": 2.25e9, "flops": 2.7e9}
HLO = """HloModule jit_epoch

%region (p: (s32[], f32[4,2])) -> (s32[], f32[4,2]) {
  %p = (s32[], /*index=1*/f32[4,2]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[4,2]{1,0} get-tuple-element(%p), index=1
  %half = bf16[4,2]{1,0:T(8,128)} convert(%x)
  %y = f32[4,2]{1,0} fusion(%half, %x), kind=kLoop, calls=%fused
  ROOT %out = (s32[], f32[4,2]{1,0}) tuple(%i, %y)
}

ENTRY %main (a: f32[4,2]) -> f32[4,2] {
  %a = f32[4,2]{1,0} parameter(0)
  %w = (s32[], f32[4,2]{1,0}) while(%a), condition=%cond, body=%region
  ROOT %r = f32[4,2]{1,0} get-tuple-element(%w), index=1
}
"""


def in_jax(program):
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_kernels_and_bytes_are_those_of_the_loop_s_body():
    """Two kernels: 32 bytes to 16, and 16 + 32 to 32."""
    program = f"import json\nfrom benchmarks import compiled\nfound = compiled.count({HLO!r})\n"
    found = in_jax(program + "print(json.dumps([found.kernels, found.bytes]))")
    assert found == [2, 32 + 16 + 16 + 32 + 32]


def test_the_program_of_an_update_keeps_within_its_bounds():
    """Of the program as JAX lowers it, before XLA makes it faster: XLA's own counts differ by machine."""
    found = in_jax(PROGRAM)
    for name, most in BOUNDS.items():
        assert most / 2 < found[name] < most, name
