"""`byol kubeflow`: compile, submit, schedule. Nothing heavy is imported before the arguments are known to be good."""

import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from kubeflow import config as cluster_config
from pipeline import cli
from pipeline.config import PipelineConfig, chosen_preset
from pipeline.console import fail, loading, quiet, stop
from pipeline.retrain.options import Options, PresetOption, SetOption, spread
from pipeline.schedule.cron import Cron
from trainer import settings

if TYPE_CHECKING:
    from components.data.dataset import DataSet
    from kubeflow.compiled import Compiled
    from kubeflow.compiler import Span
    from kubeflow.server import Server
    from pipeline.retrain.place import Place

FAILED = 1
_EXPERIMENT = "byol"
_TEST = "data/test"  # of retraining, which judges every span's model on the same pictures
_SCHEDULE = "byol-nightly"
_TABLE_WIDTH = 140

app = typer.Typer(help="Compile, submit and schedule on Kubeflow Pipelines.", no_args_is_help=True)
schedule_app = typer.Typer(help="Recurring runs on the server.", no_args_is_help=True)
app.add_typer(schedule_app, name="schedule")

ClusterOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--cluster", help="YAML file with the cluster's settings; `byol kubeflow settings` lists them."
    ),
]
ClusterSetOption = Annotated[
    list[str] | None,
    typer.Option("--cluster-set", metavar="NAME=VALUE", help="Change one setting of the cluster; repeat."),
]
SpanOption = Annotated[
    str,
    typer.Option(
        "--span",
        help="'latest' takes the highest span-N when a run starts, a number that one, 'none' a folder of records.",
    ),
]
DataSetOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--data-set",
        metavar="PATH",
        help="What the data on the volume are: their dataset.json, or a local copy of them; CIFAR-10 if left out.",
    ),
]
HostOption = Annotated[
    str,
    typer.Option(
        "--host", envvar="KF_PIPELINES_ENDPOINT", help="Address of KFP's API, http://localhost:8888."
    ),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", help="Of a multi-user installation; leave it out elsewhere.")
]
TokenOption = Annotated[
    pathlib.Path | None,
    typer.Option("--token-file", help="File that holds the bearer token, if one is needed."),
]
AuthoritiesOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        "--ca-file",
        exists=True,
        dir_okay=False,
        readable=True,
        help="Certificates of the authority that signed the server's, where it is a private one.",
    ),
]
TimeoutOption = Annotated[float, typer.Option("--timeout", help="Seconds that one request may take.")]
AccountOption = Annotated[str, typer.Option("--service-account", help="Kubernetes account of the steps.")]


@app.command("compile")
def compile_file(  # noqa: PLR0913, PLR0917 - an option of a command is an argument
    out: Annotated[pathlib.Path, typer.Argument(help="The file to write: .yaml, or .json with --vertex.")],
    preset: PresetOption = "gpu",
    assignments: SetOption = None,
    cluster: ClusterOption = None,
    cluster_assignments: ClusterSetOption = None,
    span: SpanOption = "latest",
    data_set: DataSetOption = None,
    vertex: Annotated[
        bool, typer.Option("--vertex", help="For Vertex AI instead of open-source KFP.")
    ] = False,
) -> None:
    """Write the pipeline as a file that KFP (2.0 or newer) takes, or Vertex AI."""
    from kubeflow.compiled import check_name

    try:
        check_name(out, vertex)
        wanted = _wanted(
            (preset, assignments),
            (cluster, cluster_assignments),
            (span, data_set),
            receiver="vertex" if vertex else "file",
        )
        _compiled(wanted, vertex).write(out)
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(f"Wrote {out}.")


@app.command("settings")
def show_settings(cluster: ClusterOption = None) -> None:
    """List every setting of a cluster, as `--cluster-set` takes it."""
    config = _cluster(cluster, None)
    typer.echo("\n".join(settings.lines(config)))


@app.command()
def submit(  # noqa: PLR0913, PLR0917
    host: HostOption,
    preset: PresetOption = "gpu",
    assignments: SetOption = None,
    cluster: ClusterOption = None,
    cluster_assignments: ClusterSetOption = None,
    span: SpanOption = "latest",
    data_set: DataSetOption = None,
    name: Annotated[str, typer.Option(help="Of the run; the preset and the time if left out.")] = "",
    experiment: Annotated[str, typer.Option(help="Made if there is none of that name.")] = _EXPERIMENT,
    namespace: NamespaceOption = "",
    account: AccountOption = "",
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Start one run on a server."""
    from kubeflow.server import ServerError

    wanted = _wanted(
        (preset, assignments), (cluster, cluster_assignments), (span, data_set), namespace, receiver="server"
    )
    try:
        server = _server(host, namespace, token_file, timeout, authorities)
        _check_place(server, wanted.cluster)
        compiled = _compiled(wanted)
        run = server.submit(
            compiled, name or f"{preset} {time.strftime('%Y-%m-%d %H:%M:%S')}", experiment, account
        )
    except ServerError as error:
        stop(str(error), FAILED)
    typer.echo(f"Run {run} was submitted to {host}.")


@app.command()
def check(  # noqa: PLR0913, PLR0917
    host: HostOption,
    cluster: ClusterOption = None,
    cluster_assignments: ClusterSetOption = None,
    account: AccountOption = "",
    namespace: NamespaceOption = "",
    context: Annotated[
        str, typer.Option("--context", help="Of the kubeconfig; the current one if left out.")
    ] = "",
    run: Annotated[
        bool, typer.Option("--run/--no-run", help="Also make one short run, for what only a step finds out.")
    ] = True,
    nodes: Annotated[
        bool,
        typer.Option("--nodes/--no-nodes", help="Look at the nodes first; not where a pool grows from none."),
    ] = True,
    wait: Annotated[float, typer.Option(help="Minutes that the run may take; then it is ended.")] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Ask a cluster whether the pipeline could run there: one line for each thing, with what mends it.

    Kubernetes is asked by kubeconfig; then one short run pulls the image, writes to volume and store, and asks for a
    place for each kind of step. Exit status: 0 nothing failed; 1 something did; 2 wrong arguments.
    """
    from kubeflow import checks, findings

    target = cluster_config.for_namespace(_cluster(cluster, cluster_assignments), namespace)
    try:
        cluster_config.check_platform(target, vertex=False)
        token = _token(token_file)
        asked = checks.Asked(target, namespace, account, context, wait_seconds=60.0 * wait, timeout=timeout)
        server = checks.server(host, namespace, token, timeout, authorities)
        found = checks.findings(asked, server, run, nodes)
    except ValueError as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        typer.echo("\n".join(one.line() for one in found))
    if any(one.state == findings.FAILED for one in found):
        raise typer.Exit(FAILED)


@app.command()
@spread
def retrain(  # noqa: PLR0913, PLR0917
    host: HostOption,
    root: Annotated[
        pathlib.Path,
        typer.Option(
            exists=True, file_okay=False, help="The volume, as it is mounted where this command runs."
        ),
    ],
    options: Options,
    preset: PresetOption = "gpu",
    wait: Annotated[
        float, typer.Option(help="Minutes to wait for a run; then the next call takes up what comes of it.")
    ] = 0.0,
    cluster: ClusterOption = None,
    cluster_assignments: ClusterSetOption = None,
    experiment: Annotated[str, typer.Option(help="Made if there is none of that name.")] = _EXPERIMENT,
    namespace: NamespaceOption = "",
    account: AccountOption = "",
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Train on what has arrived since the last call, in runs on a server; as `byol retrain` decides.

    Safe to call at any time: without new spans it starts no run, and a run that is at work is taken up, not repeated.

    Exit status: 0 pushed, nothing new, or a run at work; 1 failed; 2 wrong arguments; 3 refused by a gate.
    """
    from pipeline.retrain import commands as retrain_commands

    wanted = _wanted(
        (preset, options.assignments), (cluster, cluster_assignments), None, namespace, receiver="server"
    )
    target = wanted.cluster if wanted.cluster.test else dataclasses.replace(wanted.cluster, test=_TEST)
    request, told = retrain_commands.asked(root / target.data, root / target.test, root, preset, options)

    def place(_: Console) -> "Place":
        from kubeflow.retrain import Cluster, ServerRuns

        server = _server(host, namespace, token_file, timeout, authorities)
        _check_place(server, target)
        return Cluster(request.root, target, ServerRuns(server, target, experiment, account), 60.0 * wait)

    with _failures():
        retrain_commands.call(request, told, place)


@schedule_app.command("create")
def create(  # noqa: PLR0913, PLR0917
    host: HostOption,
    cron: Annotated[
        str, typer.Option(help="Five fields, `minute hour day month weekday`, in the server's time zone.")
    ] = "",
    every: Annotated[int, typer.Option(help="Instead of --cron: seconds between two starts.")] = 0,
    preset: PresetOption = "gpu",
    assignments: SetOption = None,
    cluster: ClusterOption = None,
    cluster_assignments: ClusterSetOption = None,
    span: SpanOption = "latest",
    data_set: DataSetOption = None,
    name: Annotated[
        str, typer.Option(help="One of the same name is replaced; a run of it that is at work goes on.")
    ] = _SCHEDULE,
    experiment: Annotated[str, typer.Option(help="Made if there is none of that name.")] = _EXPERIMENT,
    namespace: NamespaceOption = "",
    account: AccountOption = "",
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
    paused: Annotated[bool, typer.Option("--paused", help="Make it, but do not let it fire yet.")] = False,
    always: Annotated[
        bool, typer.Option("--always", help="Train and push every time, also where the data has not changed.")
    ] = False,
) -> None:
    """Run the pipeline whenever there is new data; one run at a time, missed times are not made up for."""
    from kubeflow.server import ServerError

    when = _when(cron, every)
    wanted = _wanted(
        (preset, assignments), (cluster, cluster_assignments), (span, data_set), namespace, receiver="server"
    )
    try:
        server = _server(host, namespace, token_file, timeout, authorities)
        _check_place(server, wanted.cluster)
        compiled = _compiled(wanted)
        if not always:
            from kubeflow.new_data import only_new

            compiled = only_new(compiled, wanted.cluster, wanted.span, name)
        made = server.schedule(compiled, name, experiment, when, not paused, account)
        older = [one for one in server.named(name) if one.identity != made.identity]
    except ServerError as error:
        stop(str(error), FAILED)
    typer.echo(
        f"Recurring run {made.name} ({made.identity}): {made.when}{'' if made.enabled else ', paused'}."
    )
    for one in older:
        typer.echo(
            f"The older one ({one.identity}) is paused; its run at work goes on, and the next `create` or `delete` "
            f"after that run has ended removes it. Servers from 2.16 on need not wait."
        )


@schedule_app.command("list")
def list_schedules(
    host: HostOption,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    namespace: NamespaceOption = "",
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """List the recurring runs; KFP's cron has seconds first."""
    from kubeflow.server import ServerError

    try:
        found = _server(host, namespace, token_file, timeout, authorities).schedules()
    except ServerError as error:
        stop(str(error), FAILED)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
        return
    table = Table("name", "id", "when", "fires", "at once", "catches up")
    for one in found:
        table.add_row(
            one.name,
            one.identity,
            one.when,
            "yes" if one.enabled else "paused",
            str(one.concurrency),
            "yes" if one.catches_up else "no",
        )
    # Never narrower than its ids, which other commands and people copy: a terminal breaks lines, and cuts nothing.
    Console(width=max(Console().width, _TABLE_WIDTH)).print(table)


NameOption = Annotated[str, typer.Option("--name", help="Of the recurring run.")]


@schedule_app.command()
def pause(
    host: HostOption,
    name: NameOption = _SCHEDULE,
    namespace: NamespaceOption = "",
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Keep a recurring run from firing; a run at work goes on."""
    with _failures():
        server = _server(host, namespace, token_file, timeout, authorities)
        for found in server.named(name):
            server.pause(found)
            typer.echo(f"Paused recurring run {found.name} ({found.identity}).")


@schedule_app.command()
def resume(
    host: HostOption,
    name: NameOption = _SCHEDULE,
    namespace: NamespaceOption = "",
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Let a recurring run fire again; if a start was missed meanwhile, KFP starts one run at once."""
    with _failures():
        server = _server(host, namespace, token_file, timeout, authorities)
        # The newest alone: an older one of the name was replaced and only waits for its run to end.
        found = server.named(name)[-1]
        server.resume(found)
    typer.echo(
        f"Resumed recurring run {found.name} ({found.identity}). KFP starts one run now if a start was missed."
    )


@schedule_app.command()
def delete(
    host: HostOption,
    name: NameOption = _SCHEDULE,
    end_runs: Annotated[
        bool, typer.Option("--end-runs", help="Delete the pods of its runs with it, at work or not.")
    ] = False,
    namespace: NamespaceOption = "",
    token_file: TokenOption = None,
    authorities: AuthoritiesOption = None,
    timeout: TimeoutOption = 60.0,
) -> None:
    """Remove a recurring run; a run at work goes on, and the run list, artifacts and served versions stay.

    Before KFP 2.16 a recurring run cannot be deleted without its runs. There, while one is at work, it is paused
    instead and the exit status is 1; otherwise the pods of ended runs go with it, and the logs that only they hold.
    """
    kept = False
    with _failures():
        server = _server(host, namespace, token_file, timeout, authorities)
        for found in server.named(name):
            working = server.remove(found, end_runs)
            kept = kept or bool(working)
            typer.echo(
                f"Paused recurring run {found.name} ({found.identity}): this server would end its run at work "
                f"({', '.join(working)}) with it. Delete it again when that has ended, or with --end-runs."
                if working
                else f"Deleted recurring run {found.name} ({found.identity})."
            )
    if kept:
        raise typer.Exit(FAILED)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    """Ends the command with one line when the server fails or knows no such thing."""
    from kubeflow.server import ServerError

    try:
        yield
    except ValueError as error:
        fail(error)
    except ServerError as error:
        stop(str(error), FAILED)


def _when(cron: str, every: int) -> "Cron | int":
    if bool(cron) == bool(every) or every < 0:
        stop(f"Give either --cron or --every with seconds above 0; received {cron!r} and {every}.")
    try:
        return Cron.parse(cron) if cron else every
    except ValueError as error:
        fail(error)


def _span(text: str) -> "Span":
    if text in ("latest", "none"):
        return "latest" if text == "latest" else None
    if not text.isdecimal():
        stop(f"--span is 'latest', 'none' or a number; received {text!r}.")
    return int(text)


def _preset(name: str, assignments: list[str] | None, data_set: "DataSet | None") -> PipelineConfig:
    side = () if data_set is None else (data_set.side,)
    try:
        return chosen_preset(name, assignments or [], *side)
    except ValueError as error:
        fail(error)


def _cluster(path: pathlib.Path | None, assignments: list[str] | None) -> cluster_config.KubeflowConfig:
    try:
        return cluster_config.load(path, assignments or [])
    except (ValueError, OSError) as error:
        fail(error)


@dataclasses.dataclass(frozen=True)
class _Wanted:
    """What is compiled, read and checked without TFX; no data set where spans themselves are looked at."""

    config: PipelineConfig
    cluster: cluster_config.KubeflowConfig
    span: "Span"
    data_set: "DataSet | None"


def _wanted(
    preset: tuple[str, list[str] | None],
    cluster: tuple[pathlib.Path | None, list[str] | None],
    data: tuple[str, pathlib.Path | None] | None,
    namespace: str = "",
    receiver: Literal["file", "server", "vertex"] = "file",
) -> _Wanted:
    """The arguments' meaning, or the end of the command.

    All that can be refused without TFX is refused here, since its import takes longer than all of it.

    Args:
        preset: its name, and what is changed of it.
        cluster: the file of its settings, and what is changed of them.
        data: the span, and where the data set is described; None where spans themselves are looked at.
        namespace: of a multi-user installation.
        receiver: of what is compiled.
    """
    span: Span = "latest"
    data_set: DataSet | None = None
    if data is not None:
        span, data_set = _described(*data)
    target = cluster_config.for_namespace(_cluster(*cluster), namespace)
    wanted = _Wanted(_preset(*preset, data_set), target, span, data_set)
    try:
        if data_set is not None:
            wanted.config.gate.floors(data_set.label_names)
        cluster_config.check_platform(wanted.cluster, receiver == "vertex")
        cluster_config.check_engine(wanted.config.beam, receiver == "vertex")
    except ValueError as error:
        fail(error)
    if receiver == "server" and wanted.cluster.image == cluster_config.EXAMPLE_IMAGE:
        stop(
            f"image is still the example {wanted.cluster.image}, which no cluster can pull; set it in --cluster."
        )
    return wanted


def _described(span: str, path: pathlib.Path | None) -> "tuple[Span, DataSet]":
    from kubeflow.description import described

    number = _span(span)
    try:
        return number, described(path, number)
    except (ValueError, OSError) as error:
        fail(error)


def _compiled(wanted: _Wanted, vertex: bool = False) -> "Compiled":
    """Compiles; what TensorFlow prints while it is imported does not reach the person."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with (
            tempfile.TemporaryDirectory() as folder,
            quiet(pathlib.Path(folder) / "compile.log", to_person=2) as person,
        ):
            with loading(person):
                from kubeflow.compiler import compile_pipeline

            return compile_pipeline(
                wanted.config, wanted.cluster, wanted.span, vertex, data_set=wanted.data_set
            )
    except ValueError as error:
        fail(error)


def _server(
    host: str,
    namespace: str,
    token_file: pathlib.Path | None,
    timeout: float,
    authorities: pathlib.Path | None,
) -> "Server":
    from kubeflow.server import Server

    return Server(host, namespace, _token(token_file), timeout, authorities)


def _check_place(server: "Server", cluster: cluster_config.KubeflowConfig) -> None:
    """Ends the command where the server would take the run and its steps could not write what they make."""
    if misplaced := server.misplaced(cluster.pipeline_root):
        stop(misplaced)


def _token(file: pathlib.Path | None) -> str:
    try:
        return file.read_text().strip() if file else ""
    except OSError as error:
        stop(f"The token cannot be read: {error}.")


# This module is the top of the import order, so it adds its part to `byol` and starts the whole.
cli.app.add_typer(app, name="kubeflow")


def main() -> None:
    """Entry point of the console script."""
    cli.main()


if __name__ == "__main__":
    main()
