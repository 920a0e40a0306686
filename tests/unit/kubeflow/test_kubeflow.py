"""The entry point on recorded ExecutorInputs, the compiled file, and the checks that stand for KFP's own compiler."""

import copy
import dataclasses
import json
import os
import pathlib
import re
from typing import Any

import pytest
import tensorflow_model_analysis as tfma
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.pipeline_spec import pipeline_spec_pb2

from components.data import dataset
from components.data.anomaly_gate import DataAnomalyError
from components.data.dataset import DataSet
from components.serving.serving_limits import ServingLimits
from kubeflow import commands, compiler, entrypoint, resolving, retrain, spec_checks
from kubeflow.compiled import task_name
from kubeflow.config import (
    Decided,
    KubeflowConfig,
    SecretVariable,
    Step,
    Steps,
    Toleration,
    check_engine,
    check_platform,
    for_namespace,
    load,
)
from pipeline import eval_config, pipeline
from pipeline.config import PRESETS, BeamConfig
from pipeline.retrain.place import Asked
from pipeline.root import Records

STORE = "minio://mlpipeline/v2/artifacts/byol/run-1"
# As KFP 2.5's launcher passes it to a Verdict-like step, shortened to what the entry point reads.
RECORDED: dict[str, Any] = {
    "inputs": {
        "parameterValues": {"floor": 0.5},
        "artifacts": {
            "model": {
                "artifacts": [
                    {
                        "name": "1112624758701696484",
                        "uri": f"{STORE}/LinearProbe/model",
                        "type": {"instanceSchema": ""},
                        "metadata": {},
                    }
                ]
            },
            "blessing": {
                "artifacts": [
                    {
                        "name": "7",
                        "uri": f"{STORE}/Evaluator/blessing",
                        "type": {"instanceSchema": ""},
                        "metadata": {"current_model": f"{STORE}/LinearProbe/model", "blessed": 1},
                    }
                ]
            },
        },
    },
    "outputs": {
        "artifacts": {
            "verdict": {
                "artifacts": [{"name": "verdict", "uri": f"{STORE}/Verdict/verdict", "metadata": {}}]
            },
            "executor-logs": {
                "artifacts": [
                    {"name": "executor-logs", "type": {"schemaTitle": "system.Artifact"}, "uri": "s3://x/y"}
                ]
            },
        },
        "outputFile": "/outputs/output_metadata.json",
    },
}
TYPES = {
    "artifacts": {
        "model": {"artifactType": {"instanceSchema": "title: tfx.Model\n"}},
        "blessing": {"artifactType": {"instanceSchema": "title: tfx.ModelBlessing\n"}},
    }
}


@pytest.fixture(scope="module")
def compiled():
    return compiler.compile_pipeline(PRESETS["gpu"], KubeflowConfig())


def changed(compiled):
    return copy.deepcopy(compiled.spec), copy.deepcopy(compiled.platform)


def test_the_launchers_own_output_is_dropped_and_inputs_get_types():
    read = entrypoint.readable(RECORDED, TYPES)
    assert list(read["outputs"]["artifacts"]) == ["verdict"]
    assert (
        read["inputs"]["artifacts"]["model"]["artifacts"][0]["type"]["instanceSchema"] == "title: tfx.Model\n"
    )
    assert "executor-logs" in RECORDED["outputs"]["artifacts"]


def test_addresses_become_the_staged_files_in_properties_too():
    read = entrypoint.readable(RECORDED, TYPES)
    model = read["inputs"]["artifacts"]["model"]["artifacts"][0]
    blessing = read["inputs"]["artifacts"]["blessing"]["artifacts"][0]
    assert model["uri"] == "/minio/mlpipeline/v2/artifacts/byol/run-1/LinearProbe/model"
    assert blessing["metadata"] == {"current_model": model["uri"], "blessed": 1}


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("s3://b/k", "/s3/b/k"),
        ("gs://b/k", "/gcs/b/k"),
        ("minio://b/k", "/minio/b/k"),
        ("/mnt/byol/x", "/mnt/byol/x"),
    ],
)
def test_an_address_comes_back_as_it_was(uri, path):
    assert entrypoint.local_path(uri) == path
    assert entrypoint.stored_uri(path) == uri


def test_what_is_written_has_the_stores_addresses_no_nulls_and_no_number_that_a_double_rounds():
    written = {
        "artifacts": {
            "verdict": {
                "artifacts": [
                    {
                        "uri": "/minio/mlpipeline/v2/artifacts/byol/run-1/Verdict/verdict",
                        "metadata": {
                            "model": "/minio/mlpipeline/v2/artifacts/byol/run-1/LinearProbe/model",
                            "span": 3,
                            "accuracy": 0.935,
                            "nothing": None,
                            "id": 1112624758701696484,
                            "files": '{"span-3/test_batch.bin": "5891b5b5"}',
                        },
                    }
                ]
            }
        }
    }
    artifact = entrypoint.publishable(written, RECORDED)["artifacts"]["verdict"]["artifacts"][0]
    assert artifact["uri"] == f"{STORE}/Verdict/verdict"
    assert artifact["metadata"] == {
        "model": f"{STORE}/LinearProbe/model",
        "span": 3,
        "accuracy": 0.935,
        "files": '{"span-3/test_batch.bin": "5891b5b5"}',
    }


def test_an_output_that_was_moved_is_refused_since_kfp_would_lose_it():
    written = {"artifacts": {"verdict": {"artifacts": [{"uri": "/mnt/elsewhere"}]}}}
    with pytest.raises(
        ValueError, match=r"is at '/mnt/elsewhere'; expected '/minio/.*', which is what KFP uploads"
    ):
        entrypoint.publishable(written, RECORDED)


@pytest.mark.parametrize(
    "members", [[], [{"uri": "", "metadata": {}}, {"uri": "/mnt/byol/spans/1", "metadata": {"a": 1}}]]
)
def test_one_artifact_stands_for_the_list_that_a_resolver_would_give(members, tmp_path, monkeypatch):
    monkeypatch.setenv("BYOL_STAGING_ROOT", str(tmp_path))
    recorded = copy.deepcopy(RECORDED)
    recorded["inputs"]["artifacts"]["model"]["artifacts"][0]["metadata"] = {"resolved": "resolved.json"}
    staged = tmp_path / "minio/mlpipeline/v2/artifacts/byol/run-1/LinearProbe/model"
    staged.mkdir(parents=True)
    (staged / "resolved.json").write_text(json.dumps(members))
    found = entrypoint.readable(recorded, TYPES)["inputs"]["artifacts"]["model"]["artifacts"]
    own = str(staged)
    assert [(one["uri"], one["metadata"]) for one in found] == [
        (m["uri"] or own, m["metadata"]) for m in members
    ]


def test_an_image_with_other_code_is_refused():
    entrypoint.check_code(entrypoint.code_digest())
    with pytest.raises(ValueError, match="compiled from other code \\(abc\\) than this image holds"):
        entrypoint.check_code("abc")


def test_a_step_leaves_what_came_of_it_on_the_volume(tmp_path):
    """KFP uploads nothing of a failed step."""
    note = tmp_path / "notes" / "AnomalyGate.json"
    note.parent.mkdir()
    with (
        pytest.raises(RuntimeError),
        entrypoint.noted(str(note)),
    ):
        raise RuntimeError("Beam's") from DataAnomalyError("span 3: mean is 30% darker")
    assert json.loads(note.read_text()) == {"failed": "span 3: mean is 30% darker", "refused": True}
    with pytest.raises(OSError, match="No space"), entrypoint.noted(str(note)):
        raise OSError(28, "No space left on device")
    assert json.loads(note.read_text()) == {"failed": "[Errno 28] No space left on device", "refused": False}
    with entrypoint.noted(str(note)) as outputs:  # the same step, tried again
        outputs["report"] = {"errors": 0}
    assert json.loads(note.read_text()) == {"outputs": {"report": {"errors": 0}}}


def tasks_of(decided):
    config = dataclasses.replace(PRESETS["gpu"], warm_start="encoder")
    found = compiler.compile_pipeline(config, KubeflowConfig(test="data/test"), span=4, decided=decided)
    return found, found.spec["root"]["dag"]["tasks"]


def parameter(task, name):
    return task["inputs"]["parameters"][name]["runtimeValue"]["constant"]


def test_steps_that_only_read_are_those_that_run_without_tfx():
    """By the classes that TFX names in the commands; what they answer is compared with TFX's in test_resolving.py."""
    made, _ = tasks_of(Decided((1,), 17, (1,), 16, "/mnt/byol/notes/a"))
    classes = set()
    for one in made.spec["deploymentSpec"]["executors"].values():
        words = [*one["container"]["command"], *one["container"].get("args", [])]
        classes.add(words[words.index("--executor_class_path") + 1])
    assert resolving.STEPS.keys() <= classes


def test_every_step_of_kfp_knows_where_to_leave_what_it_found(compiled):
    """With `submit` alone, too, which has no notes; Vertex AI has no volume of ours."""
    for one in compiled.spec["deploymentSpec"]["executors"].values():
        command = one["container"]["command"]
        assert command[command.index("--failures") + 1] == "/mnt/byol/failures"


FABRICS = DataSet("fabrics", "swatches", ("wool", "silk", "été"), 24, 40, unlabelled=True)


@pytest.mark.parametrize("decided", [None, Decided((1, 2), 17, (), None, "/mnt/byol/notes/a")])
def test_what_a_data_set_says_of_itself_reaches_every_step_that_reads_rows_or_names_classes(decided):
    config, cluster = PRESETS["gpu"], KubeflowConfig(test="data/test")
    found = compiler.compile_pipeline(config, cluster, decided=decided, data_set=FABRICS)
    tasks = found.spec["root"]["dag"]["tasks"]
    told = {
        name: parameter(task, "data_set")
        for name, task in tasks.items()
        if "data_set" in task.get("inputs", {}).get("parameters", {})
    }
    looking = {"cifar10-example-gen", "test-example-gen", "import-schema-gen", "anomaly-gate", "label-check"}
    judging = {"verdict", "robustness", "serving-check", "model-card"}
    assert told.keys() == (looking if decided else looking | judging)
    assert {dataset.from_json(text) for text in told.values()} == {FABRICS}
    schema = json.loads(parameter(tasks["statistics-gen"], "stats_options_json"))["schema_json"]
    domain = next(one for one in json.loads(schema)["feature"] if one["name"] == "label")["intDomain"]
    assert (domain["min"], domain["max"]) == ("-1", "2")
    if decided:
        return
    for name in ("transform", "pretrainer", "linear-probe", "random-probe"):
        told = json.loads(parameter(tasks[name], "custom_config"))
        assert dataset.from_json(told["data_set"]) == FABRICS
        if name != "transform":
            assert told["memory_bytes"] == config.memory_mb * 10**6
    judged = json_format.Parse(parameter(tasks["evaluator"], "eval_config"), tfma.EvalConfig())
    assert judged == eval_config.gate(config.gate, FABRICS.label_names)


def test_thresholds_of_a_thousand_classes_are_packed_into_an_argument_that_linux_takes():
    """KFP fills all of a step's parameters into one argument; the entry point gives TFX what was compiled."""
    many = DataSet("many", "", tuple(f"some class number {number}" for number in range(1000)), 24, 40)
    found = compiler.compile_pipeline(PRESETS["gpu"], KubeflowConfig(test="data/test"), data_set=many)
    tasks = found.spec["root"]["dag"]["tasks"]
    given = {
        name: source["runtimeValue"]["constant"]
        for name, source in tasks["evaluator"]["inputs"]["parameters"].items()
    }
    read = entrypoint.readable({"inputs": {"parameterValues": given}}, {})["inputs"]["parameterValues"]
    assert json_format.Parse(read["eval_config"], tfma.EvalConfig()) == eval_config.gate(
        PRESETS["gpu"].gate, many.label_names
    )
    assert len(read["eval_config"]) > 2 * spec_checks.MAX_ARGUMENT_BYTES
    assert (
        max(len(json.dumps(task["inputs"]["parameters"])) for task in tasks.values() if "inputs" in task)
        < 64 * 1024
    )
    gate = entrypoint.readable(
        {"inputs": {"parameterValues": {"data_set": parameter(tasks["anomaly-gate"], "data_set")}}}, {}
    )
    assert dataset.from_json(gate["inputs"]["parameterValues"]["data_set"]) == many


def test_a_data_set_that_no_container_could_be_told_of_is_refused():
    """An artifact's properties are not packed: KFP's store keeps them."""
    long = DataSet("long", "", tuple(f"{number} {'x' * 190}" for number in range(700)), 24, 40)
    with pytest.raises(
        ValueError, match=r"would be told of long has \d+ bytes .* Shorten its 700 label names"
    ):
        compiler.compile_pipeline(PRESETS["gpu"], KubeflowConfig(), data_set=long)
    odd = dataclasses.replace(FABRICS, label_names=("wool", "{{inputs.x}}"))
    with pytest.raises(ValueError, match=r"data_set of cifar10-example-gen holds \{\{"):
        compiler.compile_pipeline(PRESETS["gpu"], KubeflowConfig(), data_set=odd)


def test_a_run_of_retraining_is_compiled_for_what_its_span_says_of_itself():
    compiled_for = []

    class Server:
        def submit(self, made, *_):
            compiled_for.append(parameter(made.spec["root"]["dag"]["tasks"]["anomaly-gate"], "data_set"))
            return "run"

    server: Any = Server()
    for data_set in (FABRICS, None):
        records = Records(pathlib.Path("data/span-2"), 2, data_set=data_set)
        asked = Asked(PRESETS["gpu"], records, compared=(1,), baseline=None)
        runs = retrain.ServerRuns(server, KubeflowConfig(), "byol", "")
        assert runs.start(asked, Decided((1,), None, (), None, "/mnt/byol/notes/a"), "name") == "run"
    assert [dataset.from_json(text) for text in compiled_for] == [FABRICS, dataset.CIFAR10]


def test_a_run_that_looks_at_data_trains_nothing():
    found, tasks = tasks_of(Decided((1, 2), 17, (), None, "/mnt/byol/notes/a"))
    assert tasks.keys() == {
        *("cifar10-example-gen", "test-example-gen", "statistics-gen", "import-schema-gen"),
        *("example-validator", "spans-so-far", "anomaly-gate", "served-model", "label-check", "kept-span"),
    }
    assert len(found.spec["components"]) == len(found.spec["deploymentSpec"]["executors"]) == len(tasks)
    assert parameter(tasks["spans-so-far"], "spans") == "[1, 2]"
    assert parameter(tasks["served-model"], "version") == "17"
    container, _ = executor(found, "AnomalyGate")
    assert container["command"][-2:] == ["--note", "/mnt/byol/notes/a/AnomalyGate.json"]


def test_a_run_that_trains_takes_window_baseline_and_parent_as_parameters():
    window = tuple(range(1000))
    found, tasks = tasks_of(Decided(window, 17, window, 16, "/mnt/byol/notes/b"))
    assert "kept-span" not in tasks  # which the look at the data has kept
    assert parameter(tasks["window"], "spans") == json.dumps(window)
    assert parameter(tasks["warm-start"], "version") == "16"
    assert "window" in spec_checks.predecessors(tasks["transform"])
    arguments = [
        text
        for one in found.spec["deploymentSpec"]["executors"].values()
        for text in [*one["container"]["command"], *one["container"].get("args", [])]
    ]
    of_tasks = [json.dumps(task) for task in tasks.values()]
    assert max(map(len, [*arguments, *of_tasks])) < 32 * 1024
    _, without = tasks_of(Decided((3,), 17, (4,), None, "/mnt/byol/notes/b"))
    assert "warm-start" not in without
    assert "kept-networks" in without


def test_what_a_step_writes_is_not_everyones_to_change():
    before = os.umask(0)  # the launcher's
    try:
        with pytest.raises(ValueError, match="compiled from other code"):
            entrypoint.main(
                [
                    "--code_digest=abc",
                    "--executor_class_path=x",
                    "--json_serialized_invocation_args={}",
                    "--json_serialized_inputs_spec_args={}",
                ]
            )
        assert os.umask(0) == 0o022
    finally:
        os.umask(before)


def test_the_file_is_what_kfps_protos_and_its_sdk_read(compiled, tmp_path):
    compiled.write(tmp_path / "byol.yaml")
    spec, platform = yaml.safe_load_all((tmp_path / "byol.yaml").read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    loaded = components.load_component_from_file(str(tmp_path / "byol.yaml"))
    assert loaded.pipeline_spec.root.dag.tasks.keys() == spec["root"]["dag"]["tasks"].keys()
    with pytest.raises(ValueError, match=r"ends in \.yaml here"):
        compiled.write(tmp_path / "byol.json")


def test_the_presets_limits_reach_the_steps_that_ask_for_them():
    config = dataclasses.replace(
        PRESETS["demo"],
        serving=ServingLimits(max_p99_ms=20.0),
        gate=dataclasses.replace(PRESETS["demo"].gate, seed_spread=0.02),
    )
    tasks = compiler.compile_pipeline(config, KubeflowConfig()).spec["root"]["dag"]["tasks"]
    limits, spread = (
        tasks[task_name(step)]["inputs"]["parameters"][name]["runtimeValue"]["constant"]
        for step, name in (("ServingCheck", "limits"), (pipeline.VERDICT, "seed_spread"))
    )
    assert json.loads(limits)["max_p99_ms"] == 20.0
    assert spread == 0.02


def test_only_the_trainers_take_an_accelerator_and_everything_has_resources(compiled):
    tasks, executors = compiled.spec["root"]["dag"]["tasks"], compiled.spec["deploymentSpec"]["executors"]
    with_gpu = set()
    for name, task in tasks.items():
        label = compiled.spec["components"][task["componentRef"]["name"]]["executorLabel"]
        resources = executors[label]["container"]["resources"]
        assert resources["cpuLimit"] > 0
        assert resources["memoryLimit"] > 0
        if "accelerator" in resources:
            assert resources["accelerator"] == {"type": "nvidia.com/gpu", "count": "1"}
            with_gpu.add(name)
        kubernetes = compiled.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][label]
        assert kubernetes["pvcMount"] == [{"constant": "byol", "mountPath": "/mnt/byol"}]
        assert int(kubernetes["activeDeadlineSeconds"]) > 0
        assert bool(kubernetes.get("tolerations")) == (name in with_gpu)
    assert with_gpu == {"pretrainer", "linear-probe", "random-probe"}


def test_every_task_has_a_name_that_a_pod_can_have(compiled):
    """KFP 2.5's container.go:283 puts the task's name into the pod's, and Kubernetes wants DNS-1123 there."""
    tasks = compiled.spec["root"]["dag"]["tasks"]
    assert all(re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name) for name in tasks)
    assert {"cifar10-example-gen", "import-schema-gen", "random-evaluator"} <= tasks.keys()
    assert all(task["taskInfo"]["name"] == name for name, task in tasks.items())
    assert "Cifar10ExampleGen" in compiled.spec["components"]
    with pytest.raises(ValueError, match="differ in upper case alone"):
        compiler.rename_tasks({"root": {"dag": {"tasks": {"Pusher": {}, "pusher": {}}}}})


def test_retries_last_until_the_last_attempt_could_have_ended(compiled):
    """Argo 3.5.14's operator.go:1041 counts from the first attempt: an hour ended a Pretrainer that may take 24."""
    tasks, steps = compiled.spec["root"]["dag"]["tasks"], KubeflowConfig().steps
    for node, step in ((pipeline.PRETRAINER, steps.pretrain), (pipeline.RANDOM_PROBE, steps.probe)):
        until = int(tasks[task_name(node)]["retryPolicy"]["backoffMaxDuration"].removesuffix("s"))
        waits = sum(step.backoff_seconds * 2**attempt for attempt in range(step.retries))
        assert until - waits == (step.retries + 1) * (60 * step.timeout_minutes + 3600)


def test_what_a_data_gate_refused_is_not_tried_again(compiled):
    tasks = compiled.spec["root"]["dag"]["tasks"]
    assert {name for name, task in tasks.items() if "retryPolicy" not in task} == {
        "anomaly-gate",
        "label-check",
    }


VERTEX = [
    "claim=",
    "volume=/gcs/bucket/byol",
    "pipeline_root=gs://bucket/byol",
    "steps.pretrain.accelerator=NVIDIA_TESLA_T4",
    "steps.probe.accelerator=NVIDIA_TESLA_T4",
]


def executor(compiled, task):
    tasks = compiled.spec["root"]["dag"]["tasks"]
    name = task if task in tasks else task_name(task)
    label = compiled.spec["components"][tasks[name]["componentRef"]["name"]]["executorLabel"]
    kubernetes = (
        compiled.platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
        if compiled.platform
        else {}
    )
    return compiled.spec["deploymentSpec"]["executors"][label]["container"], kubernetes.get(label)


SHM = "/dev/shm"  # noqa: S108
KINDS = {"data": "Transform", "pretrain": pipeline.PRETRAINER, "probe": pipeline.RANDOM_PROBE}


def test_every_setting_of_every_kind_of_step_is_in_the_file():
    """Other values for each kind, so that none can come from another's or from a default."""
    steps = {
        kind: Step(
            cpu=number + 0.5,
            memory_gb=number + 10.0,
            accelerator=f"vendor.example/device-{kind}",
            accelerators=number,
            node_selector=(("pool", kind), ("disk", "ssd")),
            tolerations=(
                Toleration(f"taint-{kind}", effect="NoExecute"),
                Toleration("team", operator="Equal", value=kind, effect=""),
            ),
            shared_memory=f"{number}Gi",
            retries=number,
            backoff_seconds=10 * number,
            timeout_minutes=100 * number,
        )
        for number, kind in enumerate(KINDS, 1)
    }
    cluster = KubeflowConfig(
        image="registry.example/byol@sha256:0",
        claim="volume-claim",
        volume="/mnt/elsewhere",
        pull_secret="registry-login",  # noqa: S106 - a name
        secrets=(SecretVariable("store", "key", "STORE_KEY"), SecretVariable("store", "id", "STORE_ID")),
        steps=Steps(**steps),
    )
    found = compiler.compile_pipeline(PRESETS["gpu"], cluster)
    for number, (kind, task) in enumerate(KINDS.items(), 1):
        container, kubernetes = executor(found, task)
        assert container["image"] == "registry.example/byol@sha256:0"
        assert container["resources"] == {
            "cpuRequest": number + 0.5,
            "cpuLimit": number + 0.5,
            "memoryRequest": number + 10.0,
            "memoryLimit": number + 10.0,
            "accelerator": {"type": f"vendor.example/device-{kind}", "count": str(number)},
        }
        assert found.spec["root"]["dag"]["tasks"][task_name(task)]["retryPolicy"] == {
            "maxRetryCount": number,
            "backoffDuration": f"{10 * number}s",
            "backoffFactor": 2.0,
            "backoffMaxDuration": f"{(number + 1) * (6000 * number + 3600) + 10 * number * (2**number - 1)}s",
        }
        assert kubernetes == {
            "activeDeadlineSeconds": str(6000 * number),
            "nodeSelector": {"labels": {"pool": kind, "disk": "ssd"}},
            "tolerations": [
                {"key": f"taint-{kind}", "operator": "Exists", "effect": "NoExecute"},
                {"key": "team", "operator": "Equal", "value": kind},
            ],
            "pvcMount": [{"constant": "volume-claim", "mountPath": "/mnt/elsewhere"}],
            "imagePullSecret": [{"secretName": "registry-login"}],
            "secretAsEnv": [
                {"secretName": "store", "keyToEnv": [{"secretKey": "key", "envVar": "STORE_KEY"}]},
                {"secretName": "store", "keyToEnv": [{"secretKey": "id", "envVar": "STORE_ID"}]},
            ],
            "emptyDirMounts": [
                {"volumeName": "shm", "mountPath": SHM, "medium": "Memory", "sizeLimit": f"{number}Gi"}
            ],
        }
    # Nobody's environment is written into the file: a secret is a reference or is not there.
    assert not [
        e for e in found.spec["deploymentSpec"]["executors"].values() if e.get("container", {}).get("env")
    ]
    assert found.pipeline_root == cluster.pipeline_root


def test_a_warm_start_and_a_fixed_test_set_bring_their_tasks(compiled):
    config = dataclasses.replace(PRESETS["gpu"], warm_start="encoder")
    found = compiler.compile_pipeline(config, KubeflowConfig(test="data/test"))
    tasks = found.spec["root"]["dag"]["tasks"]
    warm_start, kept, pretrainer = map(task_name, (pipeline.WARM_START, "KeptNetworks", pipeline.PRETRAINER))
    more = {
        warm_start,
        kept,
        *map(task_name, (pipeline.TEST_EXAMPLE_GEN, pipeline.NEWEST_EVALUATOR)),
    }
    assert tasks.keys() - compiled.spec["root"]["dag"]["tasks"].keys() == more
    assert warm_start in spec_checks.predecessors(tasks[pretrainer])
    assert spec_checks.predecessors(tasks[kept]) == {pretrainer, "pusher"}
    # Both read and write where the other looks.
    stores = {
        tasks[name]["inputs"]["parameters"]["store"]["runtimeValue"]["constant"]
        for name in (warm_start, kept)
    }
    assert stores == {KubeflowConfig().folder("networks")}


def test_a_span_is_kept_only_behind_both_gates(compiled):
    tasks = compiled.spec["root"]["dag"]["tasks"]
    assert {"anomaly-gate", "label-check"} <= spec_checks.predecessors(tasks["kept-span"])
    stores = {
        tasks[name]["inputs"]["parameters"]["store"]["runtimeValue"]["constant"]
        for name in ("kept-span", "spans-so-far")
    }
    assert stores == {KubeflowConfig().folder("store")}


def test_a_step_without_retries_or_shared_memory_says_nothing_of_them():
    plain = Step(retries=0, shared_memory="")
    found = compiler.compile_pipeline(PRESETS["gpu"], KubeflowConfig(steps=Steps(plain, plain, plain)))
    for task in found.spec["root"]["dag"]["tasks"]:
        assert "retryPolicy" not in found.spec["root"]["dag"]["tasks"][task]
        container, kubernetes = executor(found, task)
        assert "accelerator" not in container["resources"]
        assert kubernetes.keys() == {"activeDeadlineSeconds", "pvcMount"}


def test_vertex_gets_its_own_names_and_no_kubernetes(tmp_path):
    found = compiler.compile_pipeline(PRESETS["gpu"], load(None, VERTEX), vertex=True)
    assert found.platform is None
    found.write(tmp_path / "byol.json")
    job = json.loads((tmp_path / "byol.json").read_text())
    assert job["pipelineSpec"]["schemaVersion"] == "2.1.0"
    assert job["runtimeConfig"]["gcsOutputDirectory"] == "gs://bucket/byol"
    json_format.ParseDict(job["pipelineSpec"], pipeline_spec_pb2.PipelineSpec())
    container, _ = executor(found, pipeline.PRETRAINER)
    assert container["resources"]["accelerator"] == {"type": "NVIDIA_TESLA_T4", "count": "1"}
    policy = found.spec["root"]["dag"]["tasks"][pipeline.PRETRAINER]["retryPolicy"]
    assert (policy["maxRetryCount"], policy["backoffMaxDuration"]) == (3, "3600s")
    assert "/gcs/bucket/byol/serving" in json.dumps(job)
    assert "/mnt/byol" not in json.dumps(job)
    with pytest.raises(ValueError, match=r"ends in \.json here"):
        found.write(tmp_path / "byol.yaml")


@pytest.mark.parametrize(
    ("changes", "vertex", "said"),
    [
        ([VERTEX[-1].replace("NVIDIA_TESLA_T4", "nvidia.com/gpu")], True, "expected a name of Vertex AI's"),
        (["pipeline_root=s3://bucket/byol"], True, "pipeline_root is in gs:// on Vertex AI"),
        (["claim=byol"], True, "volume a folder below /gcs/"),
        (["volume=/mnt/byol"], True, "volume a folder below /gcs/"),
        (["pull_secret=login"], True, "knows no pull_secret"),
        (["steps.data.node_selector=(('pool', 'big'),)"], True, "knows no steps.data.node_selector"),
        ([], False, "expected a name of Kubernetes', such as nvidia.com/gpu"),
        (
            ["steps.pretrain.accelerator=a.example/x", "steps.probe.accelerator=a.example/x"],
            False,
            "claim is empty",
        ),
    ],
)
def test_what_the_platform_would_ignore_is_refused(changes, vertex, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        check_platform(load(None, [*VERTEX, *changes]), vertex)


@pytest.mark.parametrize(
    "image",
    ["byol", "registry.example/byol", "registry.example:5000/byol", "registry.example/byol:latest", ""],
)
def test_an_image_that_may_change_under_a_schedule_is_refused(image):
    with pytest.raises(ValueError, match="a tag other than latest, or a digest"):
        KubeflowConfig(image=image)


@pytest.mark.parametrize(
    "image", ["byol:1", "registry.example:5000/byol:0.1.0", f"registry.example/team/byol@sha256:{'0' * 64}"]
)
def test_an_image_with_a_tag_or_digest_is_taken(image):
    assert KubeflowConfig(image=image).image == image


def test_a_secrets_value_in_place_of_a_name_is_refused_and_not_repeated():
    with pytest.raises(ValueError, match="secrets: key is no name") as error:
        SecretVariable("store", "hunter2/+==", "KEY")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda spec, _: spec.update(schemaVersion="2.0.0"), "schemaVersion is '2.0.0'"),
        (lambda spec, _: spec.update(surprise=1), "It is no PipelineSpec"),
        (lambda spec, _: spec["pipelineInfo"].update(name="by_ol"), "The pipeline's name is 'by_ol'"),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["pusher"]["dependentTasks"].append("Nobody"),
            "Task pusher waits for Nobody",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"].update(
                Evaluator_2=spec["root"]["dag"]["tasks"]["evaluator"]
            ),
            "Task Evaluator_2 has a name that no pod can have",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"].update(
                {"e" * 64: spec["root"]["dag"]["tasks"]["evaluator"]}
            ),
            "it is 1 to 63 of a-z, 0-9",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"].update(
                Evaluator=spec["root"]["dag"]["tasks"]["evaluator"]
            ),
            "Task Evaluator has a name that no pod can have",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["pretrainer"]["retryPolicy"].update(
                backoffMaxDuration="3600s"
            ),
            "Task pretrainer is tried again for 3600 s after its first start; expected more than the 345600 s",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["pusher"]["retryPolicy"].pop("backoffMaxDuration"),
            "Task pusher is tried again for 0 s",
        ),
        (
            lambda spec, _: spec["deploymentSpec"]["executors"]["Pusher_executor"]["container"][
                "args"
            ].append("x" * 131072),
            "Executor Pusher_executor has an argument of 131072 bytes",
        ),
        (
            lambda spec, _: spec["deploymentSpec"]["executors"].update(Pusher_executor={"resolver": {}}),
            "open-source KFP runs containers and importers",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["pusher"].update(
                cachingOptions={"enableCache": True}
            ),
            "Task pusher may be cached",
        ),
        (
            lambda spec, _: spec["root"]["dag"]["tasks"]["pusher"]["inputs"]["artifacts"].pop("model"),
            "Task pusher is not given its input model",
        ),
        (
            lambda spec, _: (
                spec["root"]["dag"]["tasks"]["statistics-gen"]
                .setdefault("dependentTasks", [])
                .append("pusher")
            ),
            "wait for each other",
        ),
        (
            lambda spec, _: spec["deploymentSpec"]["executors"]["Pretrainer_executor"]["container"][
                "resources"
            ]["accelerator"].update(type="NVIDIA_TESLA_T4"),
            "asks for the accelerator 'NVIDIA_TESLA_T4'",
        ),
        (
            lambda _, platform: platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"].update(
                nobody={}
            ),
            "settings for nobody, which is no executor",
        ),
    ],
)
def test_what_kfp_would_refuse_is_named_before_it_is_sent(compiled, fault, said):
    spec, platform = changed(compiled)
    assert not spec_checks.problems(spec, platform)
    fault(spec, platform)
    assert said in " ".join(spec_checks.problems(spec, platform))


def test_a_clusters_settings_come_from_a_file_and_from_assignments(tmp_path):
    path = tmp_path / "cluster.yaml"
    path.write_text("image: registry.example/byol@sha256:0\nsteps: {pretrain: {memory_gb: 64}}\n")
    config = load(path, ["steps.pretrain.cpu=16.0"])
    assert (config.image, config.steps.pretrain.memory_gb) == ("registry.example/byol@sha256:0", 64)
    expected = dataclasses.replace(KubeflowConfig().steps.pretrain, memory_gb=64, cpu=16.0)
    assert config.steps.pretrain == expected


def test_a_profile_writes_where_its_policy_lets_it():
    """The profile controller of KFP 2.16.1 (sync.py:403) allows private-artifacts/NAMESPACE/ only."""
    root = for_namespace(KubeflowConfig(), "team").pipeline_root
    assert root == "minio://mlpipeline/private-artifacts/team/v2/artifacts/byol"
    chosen = KubeflowConfig(pipeline_root="s3://bucket/byol")
    assert for_namespace(chosen, "team") == chosen
    assert for_namespace(KubeflowConfig(), "") == KubeflowConfig()
    wanted = commands._wanted(("demo", None), (None, None), ("latest", None), "team")
    assert wanted.cluster.pipeline_root == root


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a list\n", "holds no mapping of settings"),
        ("image: [\n", "is not YAML"),
        ("imgae: x\n", "imgae"),
        ("pipeline_root: /mnt/x\n", "pipeline_root is a folder in an object store"),
        ("claim: Not_A_Name\n", "claim is a Kubernetes name"),
        ("steps: {data: {accelerator: nvidia.com/gpu}}\n", "a name and a count above 0, or neither"),
        ("steps: {data: {cpu: -1.0}}\n", "cpu is above 0"),
        ("steps: {data: {shared_memory: 2 gigs}}\n", "shared_memory is a size"),
    ],
)
def test_a_wrong_cluster_file_is_refused_in_one_line(tmp_path, text, said):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the message is what is tested
        load(path, [])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("engine", "vertex"), [("portable", False), ("flink", False), ("dataflow", False), ("spark", True)]
)
def test_an_engine_that_does_not_see_a_steps_files_is_refused(engine, vertex):
    endpoint = "" if engine == "dataflow" else "host:8099"
    config = dataclasses.replace(PRESETS["demo"], beam=BeamConfig(engine=engine, endpoint=endpoint))
    cluster = load(None, VERTEX) if vertex else KubeflowConfig()
    with pytest.raises(ValueError, match=rf"beam\.engine={engine} cannot serve a step .*local, processes"):
        compiler.compile_pipeline(config, cluster, vertex=vertex)


@pytest.mark.parametrize(("engine", "vertex"), [("local", False), ("processes", False), ("dataflow", True)])
def test_an_engine_that_sees_them_is_not(engine, vertex):
    check_engine(BeamConfig(engine=engine), vertex)
