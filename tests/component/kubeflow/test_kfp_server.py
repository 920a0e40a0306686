"""Submitting and scheduling through KFP's own client, against a server on localhost; what it refuses is one line."""

import json
import pathlib
import subprocess
import sys
import time

import certifi
import pytest
from typer.testing import CliRunner

from components.data import synthetic
from kubeflow import commands, compiler
from kubeflow.config import KubeflowConfig
from kubeflow.server import Server, ServerError
from pipeline import cli
from pipeline.config import PRESETS
from pipeline.schedule.cron import Cron
from tests.component import kfp_api

NIGHTLY = Cron.parse("0 3 * * *")


@pytest.fixture
def api(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # the client reads a context file there
    with kfp_api.running() as running:
        yield running


@pytest.fixture(scope="module")
def compiled():
    return compiler.compile_pipeline(PRESETS["demo"], KubeflowConfig())


def test_a_run_is_submitted_with_its_two_documents_and_its_root(api, compiled):
    identity = Server(api.url).submit(compiled, "first", "byol", "byol-runner")
    run = api.runs[identity]
    assert run["display_name"] == "first"
    assert run["experiment_id"] == api.experiments["byol"]["experiment_id"]
    assert run["service_account"] == "byol-runner"
    assert run["runtime_config"]["pipeline_root"] == KubeflowConfig().pipeline_root
    sent = run["pipeline_spec"]
    assert (
        sent["pipeline_spec"]["root"]["dag"]["tasks"].keys() == compiled.spec["root"]["dag"]["tasks"].keys()
    )
    assert sent["platform_spec"] == compiled.platform


def test_a_run_is_found_by_its_name_and_tells_its_state_until_it_is_gone(api, compiled):
    server = Server(api.url)
    run = server.submit(compiled, "byol-look-span-1", "byol")
    assert server.run_named("byol-look-span-1") == run
    assert server.run_named("byol-look-span-2") is None
    assert server.state(run) == "PENDING"
    del api.runs[run]
    assert server.state(run) == ""
    api.failing["GET runs"] = 500
    with pytest.raises(ServerError, match="answered 500"):
        server.run_named("byol-look-span-1")


def test_retraining_submits_each_run_once_and_takes_up_what_came_of_it(api, tmp_path):
    volume = tmp_path / "volume"
    for folder in ("test", "span-1"):
        synthetic.write(volume / "data" / folder, train=100, test=20)
    (volume / "data" / "span-1" / "_SUCCESS").touch()
    options = ["kubeflow", "retrain", "--host", api.url, "--root", str(volume), "--preset", "demo"]
    options += ["--cluster-set", "image=registry.example/byol:1", "--set", "gate.minimum_test_images=20"]
    options += ["--set", "pretraining.batch_size=50", "--set", "pretraining.optimizer.warmup_steps=1"]

    def call():
        found = CliRunner().invoke(cli.app, options)
        return found.exit_code, found.output

    first, second = call(), call()
    assert (first[0], second[0]) == (0, 0), first + second
    assert "is at work; the next call takes up what comes of it." in second[1]
    (run,) = api.runs.values()
    tasks = run["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert "label-check" in tasks
    assert "pretrainer" not in tasks
    note = volume / "retraining" / "notes" / run["display_name"] / "LabelCheck.json"
    note.parent.mkdir(parents=True)
    note.write_text(
        json.dumps({"failed": "the served model agrees with 10.0% of the labels", "refused": True})
    )
    run["state"] = "FAILED"
    status, said = call()
    assert status == 3
    assert "span 1 was not taken (refused): the served model agrees with 10.0% of the labels" in said
    assert call() == (0, f"Nothing new in {volume / 'data'}.\n")
    assert len(api.runs) == 1


def test_a_schedule_has_seconds_first_runs_one_at_a_time_and_makes_up_for_nothing(api, compiled):
    made = Server(api.url).schedule(compiled, "nightly", "byol", NIGHTLY)
    sent = api.recurring[made.identity]
    assert sent["trigger"]["cron_schedule"]["cron"] == "0 0 3 * * *"
    assert sent["max_concurrency"] == 1
    assert sent["no_catchup"] is True
    assert sent["mode"] == "ENABLE"
    tasks = sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert not [name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")]


@pytest.mark.parametrize("always", [False, True])
def test_a_schedule_trains_on_new_data_alone_unless_it_is_told_otherwise(api, always):
    image = ["--preset", "demo", "--cluster-set", "image=registry.example/byol:1"]
    ended = command(api, "create", "--cron", "0 3 * * *", *image, *["--always"] * always)
    assert ended.exit_code == 0, ended.output
    (sent,) = api.recurring.values()
    tasks = sent["pipeline_spec"]["pipeline_spec"]["root"]["dag"]["tasks"]
    assert ("new-data" in tasks) is not always
    conditional = {name for name, task in tasks.items() if "triggerPolicy" in task}
    first = {name for name, task in tasks.items() if task.get("dependentTasks", []) == ["new-data"]}
    assert conditional == first
    if not always:
        assert {"cifar10-example-gen", "served-model", "import-schema-gen"} <= conditional
        assert "pusher" not in conditional  # it waits for what is skipped
        assert {"kept-span", "new-data"} <= set(tasks["data-done"]["dependentTasks"])


@pytest.mark.parametrize(
    ("version", "root", "namespace", "said"),
    [
        ("2.16.1", "minio://mlpipeline/v2/artifacts/byol", "", "multi-user installation: give --namespace"),
        ("2.15.0", "minio://mlpipeline/v2/artifacts/mine", "team", "may not write below"),
        ("2.17.0", "minio://mlpipeline/private-artifacts/other/x", "team", "may not write below"),
        ("2.17.0", "minio://mlpipeline/private-artifacts/team/x", "team", ""),
        ("2.17.0", "minio://mlpipeline/shared/x", "team", ""),
        ("2.17.0", "s3://own-bucket/v2/artifacts/x", "team", ""),
        ("2.14.0", "minio://mlpipeline/v2/artifacts/mine", "team", ""),
    ],
)
def test_a_profile_that_may_not_write_its_artifacts_is_told_before_a_run_is_made(
    api, version, root, namespace, said
):
    """Its policy: manifests/kustomize/base/installs/multi-user/pipelines-profile-controller/sync.py:401 at 2.16.1."""
    api.version, api.multi_user = version, True
    found = Server(api.url, namespace).misplaced(root)
    assert bool(found) is bool(said)
    assert said in found
    api.multi_user = False
    assert not Server(api.url, namespace).misplaced(root)
    if said:
        api.multi_user = True
        place = ["--namespace", namespace, "--cluster-set", f"pipeline_root={root}"]
        if root == KubeflowConfig().pipeline_root:
            place = []
        image = ["--cluster-set", "image=registry.example/byol:1", "--preset", "demo"]
        for words in (["submit"], ["schedule", "create", "--cron", "0 3 * * *"]):
            ended = CliRunner().invoke(commands.app, [*words, "--host", api.url, *image, *place])
            assert ended.exit_code == 2
            assert said in " ".join(ended.output.split())
        assert not api.runs
        assert not api.recurring


def test_an_interval_and_a_paused_start(api, compiled):
    made = Server(api.url).schedule(compiled, "hourly", "byol", 3600, enabled=False)
    assert api.recurring[made.identity]["trigger"]["periodic_schedule"]["interval_second"] == 3600
    assert not made.enabled
    assert made.when == "every 3600 s"


def test_creating_it_again_replaces_it_and_two_never_fire(api, compiled):
    server = Server(api.url)
    first = server.schedule(compiled, "nightly", "byol", NIGHTLY)
    other = server.schedule(compiled, "weekly", "byol", Cron.parse("0 4 * * 0"))
    api.asked.clear()
    second = server.schedule(compiled, "nightly", "byol", Cron.parse("0 5 * * *"))
    assert [one.identity for one in server.schedules()] == [other.identity, second.identity]
    changes = [asked for asked in api.asked if not asked.startswith("GET") and "experiments" not in asked]
    assert changes == [
        f"POST recurringruns/{first.identity}:disable",
        "POST recurringruns",
        f"DELETE recurringruns/{first.identity}",
    ]


@pytest.mark.parametrize("version", ["2.16.1", "2.17.0"])
def test_replacing_and_deleting_leave_the_run_at_work_where_the_server_can_orphan(api, compiled, version):
    api.version = version
    server = Server(api.url)
    first = server.schedule(compiled, "nightly", "byol", NIGHTLY)
    ended, at_work = api.fire(first.identity, "SUCCEEDED"), api.fire(first.identity)
    second = server.schedule(compiled, "nightly", "byol", Cron.parse("0 5 * * *"))
    assert [one.identity for one in server.schedules()] == [second.identity]
    assert api.workflows == {ended: None, at_work: None}
    another = api.fire(second.identity)
    assert command(api, "delete", "--name", "nightly").exit_code == 0
    assert not api.recurring
    assert api.workflows.keys() == {ended, at_work, another}


@pytest.mark.parametrize("version", ["2.5.0", "2.14.3", "2.15.0", "unknown"])
def test_elsewhere_a_replaced_one_stays_paused_until_its_run_has_ended(api, compiled, version):
    api.version = version
    server = Server(api.url)
    first = server.schedule(compiled, "nightly", "byol", NIGHTLY)
    at_work = api.fire(first.identity)
    second = server.schedule(compiled, "nightly", "byol", Cron.parse("0 5 * * *"))
    assert {one.identity: one.enabled for one in server.schedules()} == {
        first.identity: False,
        second.identity: True,
    }
    assert at_work in api.workflows

    # Two of them never fire: `resume` is the newest one's.
    assert command(api, "pause", "--name", "nightly").exit_code == 0
    resumed = command(api, "resume", "--name", "nightly")
    assert "one run now if a start was missed" in " ".join(resumed.output.split())
    assert [one.identity for one in server.schedules() if one.enabled] == [second.identity]

    refused = command(api, "delete", "--name", "nightly")
    assert refused.exit_code == 1
    assert f"would end its run at work ({at_work})" in " ".join(refused.output.split())
    assert [one.identity for one in server.schedules()] == [first.identity]
    assert at_work in api.workflows

    api.runs[at_work]["state"] = "SUCCEEDED"
    assert command(api, "delete", "--name", "nightly").exit_code == 0
    assert not api.recurring


@pytest.mark.parametrize("version", ["2.5.0", "2.16.1"])
def test_a_run_at_work_is_ended_only_when_that_is_asked_for(api, compiled, version):
    api.version = version
    server = Server(api.url)
    api.fire(server.schedule(compiled, "nightly", "byol", NIGHTLY).identity)
    assert command(api, "delete", "--name", "nightly", "--end-runs").exit_code == 0
    assert not api.recurring
    assert not api.workflows


def test_an_older_schedule_goes_on_when_the_new_one_is_refused(api, compiled):
    server = Server(api.url)
    first = server.schedule(compiled, "nightly", "byol", NIGHTLY)
    api.failing["POST recurringruns"] = 500
    with pytest.raises(ServerError, match="answered 500"):
        server.schedule(compiled, "nightly", "byol", Cron.parse("0 5 * * *"))
    (left,) = server.schedules()
    assert left == first
    assert left.enabled


@pytest.mark.parametrize("status", [401, 403, 409, 500])
def test_a_refusal_is_one_line_that_says_what_to_do(api, compiled, status):
    api.failing["POST runs"] = status
    with pytest.raises(ServerError) as error:
        Server(api.url).submit(compiled, "first", "byol")
    said = str(error.value)
    assert f"{api.url} answered {status}" in said
    assert f"planted {status}" in said
    assert "\n" not in said
    assert {401: "--token-file", 403: "roles", 409: "--name", 500: "log of the ml-pipeline pod"}[
        status
    ] in said
    assert api.asked.count("POST runs") == 1  # a second one might start a second run


def test_a_server_that_does_not_answer_is_not_waited_for(api, compiled):
    api.failing["POST runs"] = "hang"
    with pytest.raises(ServerError, match=r"did not answer within 0\.5 s"):
        Server(api.url, timeout=0.5).submit(compiled, "first", "byol")
    assert api.asked.count("POST runs") == 1


@pytest.mark.parametrize(
    ("failing", "said"),
    [
        (401, "answered 401 (Unauthorized)"),
        (409, "answered 409 (Conflict)"),
        (500, "answered 500 (Internal Server Error)"),
        ("hang", "did not answer within 0.5 s"),
    ],
)
@pytest.mark.parametrize(
    ("request_", "arguments"),
    [
        ("GET healthz", ["list"]),
        ("GET recurringruns", ["list"]),
        ("POST recurringruns/{id}:disable", ["pause", "--name", "nightly"]),
        ("POST recurringruns/{id}:enable", ["resume", "--name", "nightly"]),
        ("DELETE recurringruns/{id}", ["delete", "--name", "nightly"]),
    ],
)
def test_whatever_fails_is_one_line_and_soon(api, failing, said, request_, arguments):
    nightly = {"recurring_run_id": "1", "display_name": "nightly", "mode": "ENABLE", "trigger": {}}
    api.recurring["1"] = {**nightly, "status": "ENABLED"}
    api.failing[request_.format(id="1")] = failing
    started = time.monotonic()
    ended = command(api, *arguments, "--timeout", "0.5")
    assert ended.exit_code == 1, ended.output
    assert said in " ".join(ended.output.split())
    assert "Traceback" not in ended.output
    assert time.monotonic() - started < 3  # kfp's client itself asks again for 25 s, or for ever
    assert api.recurring["1"]["status"] == "ENABLED"


@pytest.mark.parametrize("failing", [401, 409, 500, "hang"])
@pytest.mark.parametrize("request_", ["GET healthz", "POST experiments", "POST recurringruns"])
def test_a_schedule_that_cannot_be_made_is_one_line_and_none_is_left(api, compiled, failing, request_):
    api.failing[request_] = failing
    with pytest.raises(ServerError) as error:
        Server(api.url, timeout=0.5).schedule(compiled, "nightly", "byol", NIGHTLY)
    assert (f"answered {failing}" if failing != "hang" else "did not answer") in str(error.value)
    assert "\n" not in str(error.value)
    assert not api.recurring


def test_the_example_image_is_not_sent(api):
    ended = command(api, "create", "--cron", "0 3 * * *", "--preset", "demo")
    assert ended.exit_code == 2
    assert "image is still the example" in " ".join(ended.output.split())
    assert not api.asked


def test_the_list_shows_whole_ids_on_a_narrow_terminal_and_json_to_programs(api):
    identity = "12345678-1234-1234-1234-123456789012"
    api.recurring[identity] = {
        "recurring_run_id": identity,
        "display_name": "byol-nightly-of-the-whole-team",
        "mode": "ENABLE",
        "status": "ENABLED",
        "trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}},
    }
    assert identity in command(api, "list").stdout
    (listed,) = json.loads(command(api, "list", "--json").stdout)
    assert (listed["identity"], listed["when"], listed["enabled"]) == (identity, "0 0 3 * * *", True)


def test_a_wrong_server_is_told_before_tfx_is_imported_and_the_list_never_imports_it(api):
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from kubeflow import commands\n"
        "for line in {lines!r}:\n"
        "    ended = CliRunner().invoke(commands.app, line)\n"
        "    print(ended.exit_code, 'tfx' in sys.modules, 'tensorflow' in sys.modules)\n"
    )
    image = ["--cluster-set", "image=registry.example/byol:1", "--preset", "demo"]
    engine = ["--set", "beam.engine=flink", "--set", "beam.endpoint=flink:8099"]
    lines = [
        ["schedule", "list", "--host", api.url],
        ["compile", "byol.json", "--preset", "demo"],
        ["compile", "byol.json", "--vertex", "--preset", "demo"],
        ["compile", "byol.yaml", "--preset", "demo", *engine],
        ["submit", "--host", api.url, *image, "--cluster-set", "claim="],
        ["submit", "--host", api.url, *image, *engine],
        ["schedule", "create", "--host", api.url, *image, *engine, "--cron", "0 3 * * *"],
        ["submit", "--host", "http://127.0.0.1:9", *image],
        ["submit", "--host", api.url, "--token-file", "/none", *image],
    ]
    said = subprocess.run(
        [sys.executable, "-c", program.format(lines=lines)], capture_output=True, text=True, check=True
    ).stdout
    statuses = [0, *[2] * 6, 1, 2]
    assert said.splitlines() == [f"{status} False False" for status in statuses]


def test_submitting_says_what_takes_long_and_one_answer_and_nothing_of_tensorflow_or_kfp(api):
    """Slow (the import of TFX): as a person starts it, in a process of its own."""
    image = ["--cluster-set", "image=registry.example/byol:1", "--preset", "demo"]
    command = [sys.executable, "-m", "kubeflow.commands", "kubeflow", "submit", "--host", api.url, *image]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    (run,) = api.runs
    assert ended.stdout == f"Run {run} was submitted to {api.url}.\n"
    # Where people look, not where programs do.
    assert ended.stderr == "Loading TensorFlow, Beam, TFX, TFMA; nothing else happens meanwhile.\n"


def test_a_private_authority_reaches_the_client(api, tmp_path):
    authority = pathlib.Path(certifi.where())
    server = Server(api.url, authorities=authority)
    assert server._client.healthzs.api_client.configuration.ssl_ca_cert == str(authority)
    ended = command(api, "list", "--ca-file", str(tmp_path / "none.pem"))
    assert ended.exit_code == 2
    assert not api.asked


def test_a_server_that_is_not_there_is_named(compiled):
    with pytest.raises(ServerError, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        Server("http://127.0.0.1:9").submit(compiled, "first", "byol")


def command(api, *arguments):
    return CliRunner().invoke(commands.app, ["schedule", *arguments, "--host", api.url])


def test_the_commands_list_pause_resume_and_delete_by_name(api, compiled, tmp_path):
    server = Server(api.url)
    for name in ("a", "b", "c", "d", "e"):  # three pages
        server.schedule(compiled, name, "byol", NIGHTLY)
    token = tmp_path / "token"
    token.write_text("secret\n")
    listed = command(api, "list", "--token-file", str(token))
    assert listed.exit_code == 0
    assert [line.split()[1] for line in listed.stdout.splitlines() if "0 0 3" in line] == list("abcde")
    assert api.tokens[-1] == "Bearer secret"
    assert "secret" not in listed.output

    assert command(api, "pause", "--name", "b").exit_code == 0
    assert {one.name: one.enabled for one in server.schedules()}["b"] is False
    assert command(api, "resume", "--name", "b").exit_code == 0
    assert command(api, "delete", "--name", "c").exit_code == 0
    assert {one.name: one.enabled for one in server.schedules()} == dict.fromkeys("abde", True)
    unknown = command(api, "pause", "--name", "c")
    assert unknown.exit_code == 2
    assert "There are: a, b, d, e." in unknown.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cron", "0 0 3 * * *"], "five fields"),
        (["--cron", "0 3 * * *", "--every", "60"], "either --cron or --every"),
        ([], "either --cron or --every"),
        (["--cron", "0 3 * * *", "--preset", "gpx"], "There is no preset 'gpx'"),
        (["--cron", "0 3 * * *", "--cluster-set", "pipeline_root=/mnt"], "object store"),
        (["--cron", "0 3 * * *", "--span", "newest"], "--span is"),
    ],
)
def test_wrong_arguments_are_refused_before_the_server_is_asked(api, arguments, said):
    ended = command(api, "create", *arguments)
    assert ended.exit_code == 2
    assert said in " ".join(ended.output.split())
    assert not api.asked
