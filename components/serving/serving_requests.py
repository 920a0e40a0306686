"""What a server would do with an exported model: load it, send it requests, good and hostile, and measure.

`components.serving.serving_check` runs this file in a process of its own, isolated (`-I`), with nothing to
import but
TensorFlow and NumPy: what the model needs beyond them, a server would lack too. So this file imports nothing
of the project, and an attempt of the model's to do so fails.

    INTERPRETER -I serving_requests.py FOLDER

FOLDER holds `request.json` and `pixels.npy`; `report.json` is written beside them.
"""

import base64
import functools
import importlib.abc
import json
import os
import pathlib
import resource
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

LARGE_BATCH = 257  # no multiple of anything a model might have been built for
LATENCY_REQUESTS = 100
LATENCY_WARM_UP = 10
MEMORY_EXIT_STATUS = 3

# `import tensorflow` takes it along where it is installed: a quarter of its time, and nothing of a server's.
KERAS = ("keras", "tf_keras")

Contract = dict[str, tuple[dict[str, Any], dict[str, Any]]]


def contract(classes: int, shape: Sequence[int]) -> Contract:
    """Signature -> inputs and outputs, each as name -> dtype and shape after the batch; None is any size.

    Args:
        classes: of the classifier; 0 for an encoder without one.
        shape: of a picture: height, width, channels.
    """
    embeds: Contract = {
        "serving_default": ({"image_bytes": ("string", [])}, {"embedding": ("float32", [None])}),
        "embed_pixels": ({"pixels": ("uint8", list(shape))}, {"embedding": ("float32", [None])}),
    }
    if not classes:
        return embeds
    return {
        **embeds,
        "classify": (
            {"image_bytes": ("string", [])},
            {
                "probabilities": ("float32", [classes]),
                "label": ("string", []),
                "label_names": ("string", [classes]),
            },
        ),
        "evaluate": ({"examples": ("string", [])}, {"probabilities": ("float32", [classes])}),
    }


STRING_OUTPUTS = frozenset({"label", "label_names"})
IMAGE_SIGNATURES = ("serving_default", "classify")

# Two frames of 4x4 pixels, black and white.
ANIMATED_GIF = bytes.fromhex(
    "474946383761040004008100000000000000000000000000002c00000000040004000008090001081c48b02080"
    "800021f90401000001002c000000000400040081ffffff00000000000000000008090001081c48b0208080003b"
)

Array = Any  # np.ndarray, whose type arguments differ between NumPy 1 and 2
Answer = dict[str, Array]


class CheckFailedError(Exception):
    """The model answered otherwise than it has to."""


class ProjectImportBlocker(importlib.abc.MetaPathFinder):
    """Makes the project's packages impossible to import, even where they are installed."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._packages = frozenset(packages)

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Refuses the project's packages and leaves all others to the finders that follow."""
        del path, target
        if fullname.split(".", maxsplit=1)[0] in self._packages:
            raise ImportError(f"{fullname} is part of the project, which a server does not have.")


def block_keras() -> None:
    """Makes Keras impossible to import, which None for a module does; TensorFlow takes it for not installed."""
    sys.modules.update(dict.fromkeys(KERAS))  # type: ignore[arg-type]


class Session:
    """The loaded model and what the requests to it need.

    Attributes:
        request: `request.json`.
        pixels: uint8 `[257, height, width, 3]`.
        contract: what the model has to have.
        figures: what is measured, for the report.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        import tensorflow as tf

        self.tf = tf
        self.request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        self.pixels = np.load(folder / "pixels.npy", allow_pickle=False)
        self.contract = contract(len(self.request["label_names"]), self.pixels.shape[1:])
        self.figures: dict[str, Any] = {"tensorflow": tf.__version__}
        self._examples = [base64.b64decode(example) for example in self.request["examples"]]
        self._model: Any = None

    @property
    def image_signatures(self) -> list[str]:
        """Those that take encoded images."""
        return [name for name in IMAGE_SIGNATURES if name in self.contract]

    @property
    def limits(self) -> dict[str, Any]:
        """The limits of `components.serving.serving_check.ServingLimits`."""
        return self.request["limits"]

    def load(self) -> None:
        """Loads the SavedModel and compares its signatures with the contract."""
        self._model = self.tf.saved_model.load(self.request["model"])
        missing = sorted(self.contract.keys() - set(self._model.signatures))
        if missing:
            raise CheckFailedError(
                f"missing signatures: {', '.join(missing)}; the model has "
                f"{', '.join(sorted(self._model.signatures)) or 'none'}"
            )
        for name, (inputs, outputs) in self.contract.items():
            signature = self._model.signatures[name]
            self._compare_specs(f"{name} takes", inputs, signature.structured_input_signature[1])
            self._compare_specs(f"{name} returns", outputs, signature.structured_outputs)

    def ask(self, signature: str, values: Any) -> Answer:
        """Sends one request and checks the form of the answer.

        Args:
            signature: its name.
            values: uint8 `[batch, height, width, 3]` for `embed_pixels`, else a list of byte strings.

        Returns:
            Output name -> array, checked for shape, dtype, finiteness, and probabilities for their sum.
        """
        inputs, outputs = self.contract[signature]
        (name,) = inputs
        dtype, tail = inputs[name]
        tensor = self.tf.constant(values, dtype, shape=[len(values), *tail])
        result = self._model.signatures[signature](**{name: tensor})
        answer = {key: value.numpy() for key, value in result.items()}
        for key, (expected_dtype, expected_tail) in outputs.items():
            _check_form(f"{signature}'s {key}", answer[key], expected_dtype, [len(values), *expected_tail])
        return answer

    def values(self, signature: str, rows: slice) -> Any:
        """The same images in the form that a signature takes."""
        if signature == "embed_pixels":
            return self.pixels[rows]
        if signature == "evaluate":
            return self._examples[rows]
        return [self.png(image) for image in self.pixels[rows]]

    def png(self, image: Array) -> bytes:
        """uint8 [height, width, channels] -> an encoded PNG."""
        return self.tf.io.encode_png(image).numpy()

    def compare(self, what: str, received: Array, expected: Array) -> None:
        """Compares to the tolerance, relative to the largest expected value where that is above 1."""
        if received.shape != expected.shape:
            raise CheckFailedError(f"{what} have the shapes {received.shape} and {expected.shape}")
        if received.size == 0:
            return
        difference = float(np.abs(received.astype(np.float64) - expected.astype(np.float64)).max())
        allowed = self.limits["tolerance"] * max(1.0, float(np.abs(expected).max()))
        if not difference <= allowed:  # so that NaN fails
            raise CheckFailedError(f"{what} differ by {difference:.3g}, tolerance {allowed:.3g}")

    def _compare_specs(self, what: str, expected: dict[str, Any], received: dict[str, Any]) -> None:
        if expected.keys() != received.keys():
            raise CheckFailedError(f"{what} {sorted(received)}, expected {sorted(expected)}")
        for name, (dtype, tail) in expected.items():
            spec = received[name]
            if spec.dtype.name != dtype or not spec.shape.is_compatible_with([None, *tail]):
                raise CheckFailedError(
                    f"{what} {name} as {spec.dtype.name} {spec.shape}, expected {dtype} {[None, *tail]}"
                )
            if spec.shape.rank and spec.shape[0] is not None:
                raise CheckFailedError(f"{what} {name} in batches of {spec.shape[0]} only")


def check_hostile_image(session: Session, image: bytes, signature: str) -> None:
    """One bad image is an error for its request, within memory limits, and the next request is served."""
    before = peak_memory_mb()
    for batch in ([image], [session.png(session.pixels[0]), image]):
        try:
            session.ask(signature, batch)
        except session.tf.errors.InvalidArgumentError:
            continue
        raise CheckFailedError("an image that cannot be served was answered instead of refused")
    growth = peak_memory_mb() - before
    if growth > session.limits["max_hostile_growth_mb"]:
        raise CheckFailedError(
            f"refusing it took {growth:.0f} MiB, limit {session.limits['max_hostile_growth_mb']:g} MiB: "
            "it was decoded before it was judged"
        )
    session.ask(signature, [session.png(session.pixels[0])])


def check_not_an_example(session: Session) -> None:
    """What is not an Example is an error for its request."""
    try:
        session.ask("evaluate", [b"not an Example"])
    except session.tf.errors.InvalidArgumentError:
        return
    raise CheckFailedError("bytes that are no Example were answered instead of refused")


def check_image(session: Session, image: bytes) -> None:
    """An image of another kind is served, and a batch of two gives the same twice."""
    for signature in session.image_signatures:
        answer = session.ask(signature, [image, image])
        for key in answer.keys() - STRING_OUTPUTS:
            session.compare(f"{signature}'s {key}", answer[key][:1], answer[key][1:])


def check_batches(session: Session, signature: str) -> None:
    """Batches of none, one and 257; a batch of one answers as a batch of 257 does; images differ."""
    session.ask(signature, session.values(signature, slice(0, 0)))
    many = session.ask(signature, session.values(signature, slice(0, LARGE_BATCH)))
    for row in (0, 1, LARGE_BATCH - 1):
        one = session.ask(signature, session.values(signature, slice(row, row + 1)))
        for key in one.keys() - STRING_OUTPUTS:
            what = f"{signature}'s {key} in a batch of one and of {LARGE_BATCH}"
            session.compare(what, one[key][0], many[key][row])
    key = "embedding" if "embedding" in many else "probabilities"
    if np.ptp(many[key], axis=0).max() == 0:
        raise CheckFailedError(f"{signature}'s {key} is the same for different images")


def check_agreement(session: Session) -> None:
    """The signatures say the same of the same images, and labels name the likeliest class."""
    rows = slice(0, 16)
    answers = {name: session.ask(name, session.values(name, rows)) for name in session.contract}
    session.compare(
        "the embedding of pixels and of the same pixels as PNG",
        answers["embed_pixels"]["embedding"],
        answers["serving_default"]["embedding"],
    )
    if "classify" not in answers:
        return
    classified = answers["classify"]
    session.compare(
        "the probabilities of an Example and of the same image as PNG",
        answers["evaluate"]["probabilities"],
        classified["probabilities"],
    )
    names = [name.encode() for name in session.request["label_names"]]
    for row, label_names in enumerate(classified["label_names"].tolist()):
        if label_names != names:
            raise CheckFailedError(f"classify's label_names are {label_names}, expected {names}")
        if classified["label"][row] != names[int(classified["probabilities"][row].argmax())]:
            raise CheckFailedError(
                f"classify's label {classified['label'][row]!r} is not the likeliest class"
            )


def check_session(session: Session) -> None:
    """A session that restores the variables by the saved graph's own operation answers as Python's loader does.

    That is how TensorFlow Serving loads a model; Python's loader rebuilds objects instead and finds variables that the
    graph's restoring operation misses.
    """
    tf = session.tf
    values = {name: session.values(name, slice(0, 4)) for name in session.contract}
    with tf.Graph().as_default(), tf.compat.v1.Session() as server:
        loaded = tf.compat.v1.saved_model.load(server, ["serve"], session.request["model"])
        answers = {
            name: server.run(
                {key: tensor.name for key, tensor in signature.outputs.items()},
                {tensor.name: values[name] for tensor in signature.inputs.values()},
            )
            for name, signature in loaded.signature_def.items()
            if name in session.contract
        }
    for name, answer in answers.items():
        expected = session.ask(name, values[name])
        for key in answer.keys() - STRING_OUTPUTS:
            session.compare(f"{name}'s {key} in a session and in Python", answer[key], expected[key])


def check_reference(session: Session) -> None:
    """What is served is what the trainer computed."""
    with np.load(session.request["reference"], allow_pickle=False) as reference:
        expected = {"pixels", "embedding", *(["probabilities"] if "classify" in session.contract else [])}
        absent = expected - set(reference.files)
        if absent:
            raise CheckFailedError(f"the trainer's reference lacks {', '.join(sorted(absent))}")
        pixels, embedding = reference["pixels"], reference["embedding"]
        probabilities = reference["probabilities"] if "probabilities" in expected else None
    if len(pixels) == 0:
        raise CheckFailedError("the trainer's reference holds no image")
    for start in range(0, len(pixels), LARGE_BATCH):
        rows = slice(start, start + LARGE_BATCH)
        served = session.ask("embed_pixels", pixels[rows])["embedding"]
        session.compare("the served embedding and the trainer's", served, embedding[rows])
        if probabilities is None:
            continue
        images = [session.png(image) for image in pixels[rows]]
        served = session.ask("classify", images)["probabilities"]
        session.compare("the served probabilities and the trainer's", served, probabilities[rows])
    session.figures["reference_images"] = len(pixels)


def check_latency(session: Session) -> None:
    """Requests of one image, one after the other."""
    image = session.values("serving_default", slice(0, 1))
    for _ in range(LATENCY_WARM_UP):
        session.ask("serving_default", image)
    milliseconds = []
    for _ in range(LATENCY_REQUESTS):
        start = time.perf_counter()
        session.ask("serving_default", image)
        milliseconds.append(1000 * (time.perf_counter() - start))
    for name, quantile in (("p50", 50), ("p99", 99)):
        measured = float(np.percentile(milliseconds, quantile))
        session.figures[f"latency_{name}_ms"] = round(measured, 3)
        limit = session.limits[f"max_{name}_ms"]
        if measured > limit:
            raise CheckFailedError(
                f"the {name} latency of one image is {measured:.1f} ms, limit {limit:g} ms"
            )


def check_memory(session: Session) -> None:
    """The process has stayed within its memory."""
    peak, limit = peak_memory_mb(), session.limits["max_memory_mb"]
    if peak > limit:
        raise CheckFailedError(f"the process took {peak:.0f} MiB, limit {limit:g} MiB")


def checks(session: Session) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yields the checks by name: hostile ones first, before large batches raise the peak memory."""
    tf = session.tf
    yield "signatures", session.load
    for signature in session.contract:
        yield f"first request/{signature}", functools.partial(_first_request, session, signature)
    session.figures["memory_loaded_mb"] = round(peak_memory_mb())
    gradient = np.linspace(0, 255, 400 * 600 * 3).reshape(400, 600, 3).astype(np.uint8)
    large_png = session.png(gradient)
    jpeg = tf.io.encode_jpeg(gradient).numpy()
    hostile = {
        "broken PNG": large_png[: len(large_png) // 2],
        "broken JPEG": jpeg[: len(jpeg) // 2],
        "PNG of 20,000 x 20,000": png_bomb(20_000),
        "zero bytes": b"",
        "text": b"This is a text file, not an image.\n",
        "animated GIF": ANIMATED_GIF,
    }
    for name, image in hostile.items():
        for signature in session.image_signatures:
            yield f"{name}/{signature}", functools.partial(check_hostile_image, session, image, signature)
    if "evaluate" in session.contract:
        yield "not an Example/evaluate", functools.partial(check_not_an_example, session)
    served = {
        "grey JPEG": tf.io.encode_jpeg(gradient[:48, :48, :1]).numpy(),
        "JPEG of 600 x 400": jpeg,
        "PNG of 600 x 400": large_png,
    }
    for name, image in served.items():
        yield name, functools.partial(check_image, session, image)
    for signature in session.contract:
        yield f"batches/{signature}", functools.partial(check_batches, session, signature)
    yield "agreement of signatures", functools.partial(check_agreement, session)
    yield "loaded as TensorFlow Serving does", functools.partial(check_session, session)
    if session.request["reference"] is not None:
        yield "agreement with the trainer", functools.partial(check_reference, session)
    yield "latency", functools.partial(check_latency, session)
    yield "memory", functools.partial(check_memory, session)


def _first_request(session: Session, signature: str) -> None:
    session.ask(signature, session.values(signature, slice(0, 1)))


def run_checks(session: Session, folder: pathlib.Path) -> None:
    """Runs all checks and writes the report; without the right signatures no others are tried."""
    results: list[dict[str, Any]] = []
    for name, check in checks(session):
        print(name, flush=True)  # noqa: T201 - where a process that dies says how far it came
        start = time.monotonic()
        problem = _problem(session, check)
        seconds = round(time.monotonic() - start, 3)
        results.append({"check": name, "passed": problem is None, "seconds": seconds})
        if problem is not None:
            results[-1]["problem"] = problem
            if name == "signatures":
                break
    session.figures["memory_peak_mb"] = round(peak_memory_mb())
    write_report(folder, {"checks": results, "figures": session.figures})


def _problem(session: Session, check: Callable[[], None]) -> str | None:
    # What loading and calling a model raise: TensorFlow's own errors, and Python's for what does not fit a
    # function.
    try:
        check()
    except CheckFailedError as error:
        return str(error)
    except (session.tf.errors.OpError, ValueError, TypeError, KeyError, OSError, AttributeError) as error:
        return f"{type(error).__name__}: {str(error)[:2000]}"
    return None


def _check_form(what: str, value: Array, dtype: str, shape: list[int | None]) -> None:
    kind = "string" if value.dtype == object else value.dtype.name
    fits = value.ndim == len(shape) and all(b in (None, a) for a, b in zip(value.shape, shape, strict=True))
    if kind != dtype or not fits:
        raise CheckFailedError(f"{what} is {kind} {list(value.shape)}, expected {dtype} {shape}")
    if kind == "string":
        return
    if not np.isfinite(value).all():
        bad = np.count_nonzero(~np.isfinite(value))
        raise CheckFailedError(f"{what} is not finite in {bad} of {value.size} values")
    if what.endswith("probabilities") and value.size:
        off = np.abs(value.sum(axis=1) - 1).max()
        if value.min() < 0 or off > 1e-4:
            raise CheckFailedError(
                f"{what} are none: the smallest is {value.min():.3g}, a sum is off 1 by {off:.3g}"
            )


def png_bomb(side: int) -> bytes:
    """A valid black-and-white PNG of side x side pixels: some kilobytes that decode to 3 * side**2 bytes."""
    compressor = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)  # a filter byte, then one bit a pixel
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        png += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png


def peak_memory_mb() -> float:
    """The most memory this program has had resident, in MiB.

    Linux's `ru_maxrss` begins with what the parent had before it started this program, hence /proc first.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def watch_memory(limit_mb: float, folder: pathlib.Path) -> None:
    """Ends the process once it passes the limit, so that a bad model does not take the machine's memory."""

    def watch() -> None:
        while peak_memory_mb() <= limit_mb:
            time.sleep(0.02)
        write_report(folder, {"checks": [], "figures": {"memory_peak_mb": round(peak_memory_mb())}})
        os._exit(MEMORY_EXIT_STATUS)

    threading.Thread(target=watch, daemon=True).start()


def write_report(folder: pathlib.Path, report: dict[str, Any]) -> None:
    """Writes `report.json`, whole or not at all."""
    temporary = folder / "report.json.part"
    temporary.write_text(json.dumps(report, indent=2), encoding="utf-8")
    temporary.replace(folder / "report.json")


def main() -> None:
    """Reads the request, runs the checks and writes the report."""
    folder = pathlib.Path(sys.argv[1])
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    sys.meta_path.insert(0, ProjectImportBlocker(request["project_packages"]))
    block_keras()
    watch_memory(request["limits"]["max_memory_mb"], folder)
    run_checks(Session(folder), folder)


if __name__ == "__main__":
    main()
