"""The steps that run without TFX: what they import, and that they answer what TFX's own entry point would have."""

import json
import pathlib
import subprocess
import sys

import pytest
from google.protobuf import text_format
from tfx import v1 as tfx
from tfx.types import standard_artifacts

from components.data.dataset import DataSet
from components.data.schema import SCHEMA_FILE, schema_of, schema_text
from kubeflow import bindings, entrypoint, resolving

HEAVY = (
    "tensorflow",
    "keras",
    "tensorflow_model_analysis",
    "apache_beam",
    "tfx",
    "ml_metadata",
    "jax",
    "kfp",
)
EXAMPLES = {"artifactType": {"instanceSchema": "title: tfx.Examples\n"}}
# As KFP's launcher starts a step, in a fresh interpreter, and then what that has imported.
PROGRAM = """
import sys
from kubeflow import entrypoint
entrypoint.main(sys.argv[1:])
print(len(sys.modules), [name for name in {heavy!r} if name in sys.modules])
"""


@pytest.fixture
def store(tmp_path):
    """Examples of spans 1 to 3, as KeptSpan keeps them."""
    for number in (1, 2, 3):
        folder = tmp_path / "spans" / f"span-{number}" / "1"
        folder.mkdir(parents=True)
        metadata = {"split_names": '["train"]', "custom:span": number}
        (folder / resolving.NOTE).write_text(json.dumps(metadata))
    return tmp_path / "spans"


def message(tmp_path, name, parameters, output, inputs=None):
    uri = f"minio://bucket/byol/run-1/{name}/salt/{output}"
    kind = {"instanceSchema": "title: tfx.Examples\n"}
    return {
        "inputs": {"parameterValues": parameters, "artifacts": inputs or {}},
        "outputs": {
            "artifacts": {
                output: {"artifacts": [{"name": output, "type": kind, "uri": uri, "metadata": {}}]}
            },
            "outputFile": str(tmp_path / "minio/bucket/byol/run-1" / name / "salt/output_metadata.json"),
        },
    }


CURRENT = {"current": {"artifacts": [{"name": "7", "uri": "minio://b/e", "metadata": {"custom:span": 3}}]}}
STEPS = {
    "SpansSoFar": ("StoredSpans", {"spans": "every"}, "examples", CURRENT, [1, 2]),
    "Decided": ("StoredSpans", {"spans": "[2]"}, "examples", CURRENT, [2]),
    "Window": ("KeptWindow", {"spans": "[3, 1]"}, "examples", {}, [3, 1]),
    "ServedModel": ("ServedModel", {"version": "served"}, "model", {}, []),
}


def ran(executor, given, inputs, tmp_path):
    """Runs a step as its container does, checks what that imported, and returns its answer."""
    options = {
        "--code_digest": entrypoint.code_digest(),
        "--executor_class_path": executor,
        "--json_serialized_invocation_args": json.dumps(given),
        "--json_serialized_inputs_spec_args": json.dumps({"artifacts": inputs}),
    }
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            PROGRAM.format(heavy=HEAVY),
            *(word for pair in options.items() for word in pair),
        ],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "BYOL_STAGING_ROOT": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    modules, heavy = ended.stdout.split(" ", 1)
    assert heavy.strip() == "[]"
    assert int(modules) < 500  # TFX's entry point alone imports eight thousand
    return json.loads(pathlib.Path(given["outputs"]["outputFile"]).read_text())


@pytest.mark.parametrize("name", STEPS)
def test_its_container_imports_next_to_nothing_and_answers_as_tfx_does(name, store, tmp_path):
    component, parameters, output, inputs, spans = STEPS[name]
    parameters = {**parameters, "serving" if component == "ServedModel" else "store": str(store)}
    given = message(tmp_path, name, parameters, output, inputs)
    answer = ran(
        f"kubeflow.bindings.{component}_Executor", given, {"current": EXAMPLES} if inputs else {}, tmp_path
    )
    (made,) = answer["artifacts"][output]["artifacts"]
    assert made["uri"] == given["outputs"]["artifacts"][output]["artifacts"][0]["uri"]
    listed = json.loads(
        (tmp_path / "minio" / made["uri"].removeprefix("minio://") / resolving.NOTE).read_text()
    )
    assert [one["metadata"]["custom:span"] for one in listed] == spans

    # The same by the class that TFX makes of the component.
    theirs = (standard_artifacts.Model if output == "model" else standard_artifacts.Examples)()
    theirs.uri = str(tmp_path / "theirs")
    current = standard_artifacts.Examples()
    current.set_int_custom_property("span", 3)
    executor = getattr(bindings, component).EXECUTOR_SPEC.executor_class()
    executor.Do({"current": [current]} if inputs else {}, {output: [theirs]}, parameters)
    assert json.loads((tmp_path / "theirs" / resolving.NOTE).read_text()) == listed
    assert theirs.get_string_custom_property(resolving.RESOLVED) == made["metadata"][resolving.RESOLVED]


def test_the_schema_step_answers_as_tfxs_import_of_a_written_one_does(tmp_path):
    """Of a data set that no file of the image is about."""
    fabrics = DataSet("fabrics", "swatches", ("wool", "silk", "été"), 24, 40, unlabelled=True)
    parameters = {"schema_file": str(SCHEMA_FILE), "data_set": fabrics.to_json()}
    given = message(tmp_path, "ImportSchemaGen", parameters, "schema")
    ran("kubeflow.bindings.ReviewedSchema_Executor", given, {}, tmp_path)
    ours = tmp_path / "minio/bucket/byol/run-1/ImportSchemaGen/salt/schema"

    written = tmp_path / "schema.pbtxt"
    written.write_text(schema_text(fabrics))
    theirs = standard_artifacts.Schema()
    theirs.uri = str(tmp_path / "theirs")
    executor = tfx.components.ImportSchemaGen.EXECUTOR_SPEC.executor_class()
    executor.Do({}, {"schema": [theirs]}, {"schema_file": str(written)})
    assert {path.name: path.read_bytes() for path in ours.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "theirs").iterdir()
    }
    label = next(one for one in schema_of(fabrics).feature if one.name == "label")
    assert (label.int_domain.min, label.int_domain.max) == (-1, 2)


def test_what_is_no_schema_is_not_taken_for_one(tmp_path):
    (tmp_path / "schema.pbtxt").write_text("features { name: 1 }")
    with pytest.raises(text_format.ParseError, match="features"):
        resolving.reviewed_schema(
            str(tmp_path / "schema.pbtxt"), "", resolving.PlainArtifact({"uri": str(tmp_path / "out")})
        )
    assert not (tmp_path / "out").exists()
