"""Commands for what a run pushed: embed images, search among them, serve the encoder."""

import dataclasses
import json
import logging
import os
import pathlib
import shutil
import signal
import socket
import sys
import threading
import typing
import warnings
from typing import Annotated

import typer

from pipeline.console import fail, stop

if typing.TYPE_CHECKING:
    from pipeline.use.embeddings import EmbeddingTable
    from pipeline.use.encoder import Encoder

_FAILED = 1
_SHOWN = 5
_BATCH = 256
_SERVER = "tensorflow_model_server"
_HOST = "127.0.0.1"

RootOption = Annotated[
    pathlib.Path | None, typer.Option("--root", help="Root of a run; its served encoder is taken.")
]
ModelOption = Annotated[
    pathlib.Path | None,
    typer.Option("--model", help="A serving folder or a version folder, instead of --root."),
]


def register(app: typer.Typer, data_app: typer.Typer) -> None:
    """Adds the commands to the command line, and one to those about data."""
    app.command()(embed)
    app.command()(search)
    app.command()(serve)
    data_app.command("images")(data_images)


def embed(
    images: Annotated[
        list[pathlib.Path], typer.Argument(help="Pictures, and folders looked through for them.")
    ],
    out: Annotated[pathlib.Path, typer.Option(help="File to write: .parquet or .npz.")],
    root: RootOption = None,
    model: ModelOption = None,
) -> None:
    """Embed images with a pushed encoder.

    A broken image is named and left out; the others are written, and the exit status is 1.
    """
    from pipeline.use import embeddings

    try:
        embeddings.check_suffix(out)
        files, others = embeddings.image_files(images)
        table, broken = _embed_files(_load(root, model), files)
        for file, reason in broken.items():
            typer.echo(f"Left out: {file}: {reason}.", err=True)
        if not table.names:
            stop(f"None of {len(files)} images could be read.", _FAILED)
        _save(table, out)
    except (ValueError, OSError) as error:
        fail(error)
    if others:
        shown = ", ".join(map(str, others[:_SHOWN])) + (", ..." if len(others) > _SHOWN else "")
        typer.echo(f"Left out, being no pictures ({len(others)}): {shown}.", err=True)
    typer.echo(f"Wrote {len(table.names)} embeddings of {table.vectors.shape[1]} numbers to {out}.")
    if broken:
        stop(f"{len(broken)} of {len(files)} images were left out; they are named above.", _FAILED)


def search(
    image: Annotated[pathlib.Path, typer.Argument(help="The picture whose like is looked for.")],
    source: Annotated[pathlib.Path, typer.Option("--in", help="What `byol embed` wrote: .parquet or .npz.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many images to list.")] = 5,
    root: RootOption = None,
    model: ModelOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")] = False,
) -> None:
    """List the images most like one, by the cosine of their embeddings, the most alike first.

    The encoder is the one that made the embeddings, unless --root or --model names another place of it.
    """
    from pipeline.use import embeddings

    try:
        table = embeddings.load(source)
        if image.is_file():
            embeddings.check_pictures([image])
        encoder = _same_encoder(table, root, model)
        found = embeddings.nearest(table, encoder([image])[0], k)
    except (ValueError, OSError) as error:
        fail(error)
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(neighbor) for neighbor in found], indent=2))
        return
    for neighbor in found:
        typer.echo(f"{neighbor.cosine:.4f}  {neighbor.name}")


def serve(
    root: Annotated[pathlib.Path, typer.Option(help="Root of a run, or a serving folder.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the REST API; 0 takes a free one.")
    ] = 8501,
    host: Annotated[
        str | None,
        typer.Option(
            help=f"Address to listen on; 127.0.0.1 if left out. {_SERVER} knows no address but all of them."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="The model's name in the addresses.")] = "byol",
    builtin: Annotated[
        bool, typer.Option("--builtin", help=f"Take the small server even where {_SERVER} is installed.")
    ] = False,
) -> None:
    """Serve the encoder over REST: by TensorFlow Serving where it is installed, else by a small server alike.

    New versions are taken up as they are pushed. Ctrl-C or SIGTERM ends it, once what has come in is answered.
    """
    from pipeline.use import encoder

    try:
        folder = encoder.find_version(root).parent.absolute()
    except (ValueError, OSError) as error:
        fail(error)
    installed = shutil.which(_SERVER)
    if installed and not builtin:
        if host not in (None, "0.0.0.0", "::"):  # noqa: S104 - asked for by the caller
            stop(
                f"{_SERVER} listens on every interface, not on {host} alone. Give --builtin, or --host 0.0.0.0."
            )
        _serve_by_tensorflow(installed, folder, name, port)
    else:
        _serve_by_ourselves(folder, name, host or _HOST, port)


def data_images(
    records: Annotated[pathlib.Path, typer.Argument(help="A record file, such as DIR/test_batch.bin.")],
    out_dir: pathlib.Path,
    count: Annotated[int, typer.Option(min=1, help="How many of its first images.")] = 200,
) -> None:
    """Write images of a record file as PNG files, one folder a class, to look at or to embed."""
    from PIL import Image

    from components.data import cifar10, dataset

    try:
        data_set = dataset.read(records.parent)
        images, labels = cifar10.read_records(records, data_set=data_set)
        for number, (image, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
            folder = out_dir / data_set.label_name(int(label)).replace("/", "_").lstrip(".")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{records.stem}-{number:05d}.png")
    except (ValueError, OSError) as error:
        fail(error)
    typer.echo(f"Wrote {min(count, len(images))} images to {out_dir}.")


def _serve_by_tensorflow(executable: str, folder: pathlib.Path, name: str, port: int) -> None:
    """Becomes TensorFlow Serving, so that signals reach it."""
    if port == 0:  # which means no REST API to it
        with socket.create_server((_HOST, 0)) as probe:
            port = probe.getsockname()[1]
    typer.echo(f"{executable} serves {folder} on every interface, http://localhost:{port}/v1/models/{name}")
    sys.stdout.flush()
    arguments = [f"--rest_api_port={port}", "--port=0", f"--model_name={name}", f"--model_base_path={folder}"]
    os.execv(executable, [executable, *arguments])  # noqa: S606 - no shell is wanted


def _serve_by_ourselves(folder: pathlib.Path, name: str, host: str, port: int) -> None:
    try:
        # A taken port is told at once, and not after TensorFlow has been loaded.
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        _cannot_listen(host, port, error)
    _quiet_tensorflow()
    from pipeline.use import http_server, memory, rest, version_follower

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("byol.serve").setLevel(logging.INFO)
    logging.getLogger("waitress").setLevel(logging.ERROR)  # a line for each request that waits, else
    memory.settle()
    try:
        follower = version_follower.VersionFollower(folder)
        server = http_server.start_server(rest.RestApp(name, follower), host, port)
    except ValueError as error:
        fail(error)
    except OSError as error:
        _cannot_listen(host, port, error)

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # asked a second time, it ends at once
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    threading.Thread(target=follower.follow, daemon=True).start()
    shown = f"[{host}]" if ":" in host else host
    typer.echo(
        f"Version {follower.current.number}: http://{shown}:{server.port}/v1/models/{name} (Ctrl-C ends it)"
    )
    sys.stdout.flush()
    try:
        server.serve_forever()
    finally:
        follower.stop()
    typer.echo("Ended.")


def _cannot_listen(host: str, port: int, error: OSError) -> typing.NoReturn:
    reason = (error.strerror or str(error)).split(" (")[0]
    stop(f"Cannot listen on {host}, port {port}: {reason}. Choose another --port or --host.")


def _load(root: pathlib.Path | None, model: pathlib.Path | None) -> "Encoder":
    place = root or model
    if place is None or (root and model):
        raise ValueError("Give either --root, a run's root, or --model, a serving or version folder.")
    _quiet_tensorflow()
    from pipeline.use.encoder import load_encoder

    return load_encoder(place)


def _same_encoder(
    table: "EmbeddingTable", root: pathlib.Path | None, model: pathlib.Path | None
) -> "Encoder":
    """The encoder that made the table; another one's vectors would be compared in vain."""
    from components.serving import serving_folder
    from pipeline.use.encoder import find_version

    place = root or model or pathlib.Path(table.model)
    if not place.exists():
        raise ValueError(f"The encoder {place} is gone; give --root or --model, or embed the images again.")
    folder = find_version(place)
    # Before anything of it is loaded: the table names the place, and may be anybody's.
    if serving_folder.model_digest(folder) != table.digest:
        raise ValueError(
            f"The embeddings were made by another encoder ({table.model}) than {folder}. Name that one with "
            "--model, or embed the images again."
        )
    return _load(None, folder)


def _embed_files(
    encoder: "Encoder", files: list[pathlib.Path]
) -> tuple["EmbeddingTable", dict[pathlib.Path, str]]:
    import numpy as np
    from rich.console import Console
    from rich.progress import track

    from components.serving import serving_folder
    from pipeline.use import embeddings

    names: list[str] = []
    vectors: list[np.ndarray] = []
    broken: dict[pathlib.Path, str] = {}
    groups = list(embeddings.batches(files, _BATCH))
    for group in track(groups, "Embedding", console=Console(stderr=True), disable=not sys.stderr.isatty()):
        result = encoder.embed(group)
        # A name that is no text on this system still has to be written as text.
        names += [os.fsencode(group[place]).decode("utf-8", "replace") for place in result.kept]
        vectors.append(result.vectors)
        broken |= {group[place]: reason for place, reason in result.broken.items()}
    table = embeddings.EmbeddingTable(
        names=tuple(names),
        vectors=np.concatenate(vectors),
        model=str(encoder.path.absolute()),
        digest=serving_folder.model_digest(encoder.path),
    )
    return table, broken


def _save(table: "EmbeddingTable", out: pathlib.Path) -> None:
    from pipeline.use import embeddings

    try:
        embeddings.save(table, out)
    except OSError as error:
        raise ValueError(f"Cannot write {out}: {error.strerror}. Choose another --out.") from error


def _quiet_tensorflow() -> None:
    """Its C++ code and its dependents write to the terminal unless told before it is imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", category=FutureWarning)
