"""`byol serve` under good and hostile requests at once, with versions that change, in a process of its own.

    .venv/bin/python -m benchmarks.serve_soak --root runs/demo --write table.md      100,000 good, 10,000 hostile
    .venv/bin/python -m benchmarks.serve_soak --root runs/demo --good 500 --hostile 100 --changes 2 --seconds 2

It asks with 1, 8 and 64 clients for `--seconds` each; then comes the soak, of `--minutes` at most. Prints a table of
requests a second, latency and the server's memory, and what failed; the exit status is 1 if a good request failed, an
answer was another model's, memory grew, or the server ended. The root itself is only read: versions are copies of its
served one, published into a temporary folder.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import gzip
import http.client
import io
import json
import pathlib
import queue
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zlib

import numpy as np
from PIL import Image

from pipeline.use.encoder import find_version

PATH = "/v1/models/byol:predict"
# Of the measurements before the soak.
CLIENTS = (1, 8, 64)
HEAD = b"POST /v1/models/byol:predict HTTP/1.1\r\nHost: soak\r\n"


class Server:
    """The command in its own process over a temporary serving folder."""

    def __init__(self, source: pathlib.Path, folder: pathlib.Path) -> None:
        self.source, self.folder = source, folder
        self.number = 0
        self.change()
        command = ["serve", "--root", str(folder), "--port", "0", "--builtin"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.cli", *command], stdout=subprocess.PIPE, text=True
        )
        said = self.process.stdout.readline() if self.process.stdout else ""
        self.port = int(said.split("http://127.0.0.1:")[1].split("/")[0])

    def change(self) -> None:
        """Publishes the model again; the folder appears by one rename, as a push does it."""
        self.number += 1
        staging = self.folder / f".staging-{self.number}"
        shutil.copytree(self.source, staging)
        staging.rename(self.folder / str(self.number))

    def resident_mib(self) -> float:
        """Of the process, as Linux tells it."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


class Client:
    """A connection that is kept, as a good client keeps it."""

    def __init__(self, port: int, body: bytes) -> None:
        self.port, self.body = port, body
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def ask(self) -> tuple[int, bytes]:
        """Status and answer; a kept connection that was closed while it idled is opened again, as clients do."""
        for attempt in (0, 1):
            try:
                self.connection.request("POST", PATH, self.body)
                answer = self.connection.getresponse()
                return answer.status, answer.read()
            except (http.client.RemoteDisconnected, ConnectionError):
                self.connection.close()
                if attempt:
                    raise
        raise AssertionError


def _png_bomb() -> bytes:
    """The beginning of a PNG of 400 megapixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def _jpeg_bomb() -> bytes:
    """A progressive JPEG whose last scan comes 2,000 times."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "JPEG", progressive=True)
    whole = file.getvalue()
    return whole[:-2] + whole[whole.rindex(b"\xff\xda") : -2] * 2000 + whole[-2:]


def _picture(data: bytes) -> bytes:
    return b'{"instances":[{"b64":"' + base64.b64encode(data) + b'"}]}'


CHUNKED, PACKED = b"Transfer-Encoding: chunked\r\n", b"Content-Encoding: gzip\r\n"
# What ends before it should, or is no request.
CUT = {
    "a chunk cut off": HEAD + CHUNKED + b"\r\n40\r\nabc",
    "chunks cut off": HEAD + CHUNKED + b"\r\n1\r\n{\r\n",
    "a chunk's end missing": HEAD + CHUNKED + b"\r\n2\r\n{}XX0\r\n\r\n",
    "a length without end": HEAD + CHUNKED + b"\r\n" + b"1" * 10_000,
    "a length of no number": HEAD + CHUNKED + b"\r\n-1\r\n",
    "a body cut off": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "zero bytes": b"\x00" * 100 + b"\r\n\r\n",
    "too much announced": HEAD + b"Content-Length: 99999999999\r\n\r\n",
    "a header without end": HEAD + b"X: " + b"y" * 300_000,
}
# Whole requests, wrong or meant to take memory.
BODIES = {
    "deep lists": b"[" * 100_000,
    "deep lists in instances": b'{"instances":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": b'{"instances":[' + b'{"a":' * 50_000 + b"0" + b"}" * 50_000 + b"]}",
    "empty lists": b'{"instances":[' + b"[]," * 3_000_000 + b"0]}",
    "a long number": b'{"instances":[' + b"9" * 100_000 + b"]}",
    "no image": b'{"instances":["no image"]}',
    "ragged": b'{"signature_name":"embed_pixels","instances":[[1,2],[3]]}',
    "noise": _picture(bytes(range(256)) * 4),
    "a PNG bomb": _picture(_png_bomb()),
    "a JPEG bomb": _picture(_jpeg_bomb()),
    "no UTF-8": b'{"instances":["\xff\xfe"]}',
}
PACKED_BODIES = {
    "a gzip bomb": gzip.compress(bytes(200 * 1024 * 1024)),
    "a gzip bomb of JSON": gzip.compress(b'{"instances":[' + b"[]," * 20_000_000 + b"0]}"),
    "gzip cut off": gzip.compress(BODIES["ragged"])[:-6],
    "no gzip": BODIES["ragged"],
}


def _whole(body: bytes, more: bytes = b"") -> bytes:
    return HEAD + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


HOSTILE = {
    **CUT,
    **{what: _whole(body) for what, body in BODIES.items()},
    **{what: _whole(body, PACKED) for what, body in PACKED_BODIES.items()},
}


def hostile(port: int, draw: random.Random) -> None:
    """One request of a kind that is drawn; what comes back does not matter. One in twenty is sent a byte at a time."""
    data = HOSTILE[draw.choice(sorted(HOSTILE))]
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        if draw.random() < 0.05:
            for byte in data[: draw.randrange(len(HEAD), len(HEAD) + 60)]:
                connection.sendall(bytes([byte]))
                time.sleep(0.02)
            return
        connection.sendall(data)
        if draw.random() < 0.5:
            connection.recv(1000)
        if draw.random() < 0.05:
            time.sleep(draw.uniform(0, 2))


class Memory:
    """What the server's process holds, once a second, while the block runs."""

    def __init__(self, server: Server) -> None:
        self._server, self._ended = server, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.mib: list[float] = []

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        with contextlib.suppress(OSError, IndexError):  # a process that ended is told otherwise
            while True:
                self.mib.append(self._server.resident_mib())
                if self._ended.wait(1):
                    return

    def quarters(self) -> tuple[float, float]:
        """The medians of the second quarter of the time and of the last, in MiB: the same where memory is flat."""
        second, last = (self.mib[len(self.mib) * n // 4 : len(self.mib) * (n + 1) // 4 or 1] for n in (1, 3))
        return float(np.median(second or self.mib)), float(np.median(last or self.mib))


class Good:
    """The good clients: what they still have to send, how long each answer took, and what failed."""

    def __init__(self, server: Server, body: bytes, requests: int, changes: int, seconds: float) -> None:
        self.server, self.body, self.changes = server, body, changes
        self.requests, self.lock = requests, threading.Lock()
        self.allowed, self.deadline = seconds, time.monotonic() + seconds
        self.expected = json.loads(Client(server.port, body).ask()[1])["predictions"]
        self.left: queue.SimpleQueue = queue.SimpleQueue()
        for number in range(1, requests + 1):
            self.left.put(number)
        self.seconds: list[float] = []
        self.failures: list[str] = []

    def run(self) -> None:
        """Sends what is left over one connection; several threads do."""
        client = Client(self.server.port, self.body)
        with contextlib.suppress(queue.Empty):
            while time.monotonic() < self.deadline:
                number = self.left.get_nowait()
                self.change_in_time(number / self.requests)
                self.send(client)

    def change_in_time(self, asked: float) -> None:
        """Publishes the next version when its share of the requests or of the time has passed.

        Args:
            asked: the share of the requests, in 0..1.
        """
        passed = max(asked, 1 - (self.deadline - time.monotonic()) / self.allowed)
        with self.lock:
            changed = self.server.number - 1
            if changed < self.changes and passed >= (changed + 1) / (self.changes + 1):
                self.server.change()

    def send(self, client: Client) -> None:
        """Sends one request and compares the answer with the first."""
        began = time.perf_counter()
        try:
            status, answer = client.ask()
        except (OSError, http.client.HTTPException) as error:
            self.failures.append(repr(error))
            return
        self.seconds.append(time.perf_counter() - began)
        if status != 200 or not np.allclose(json.loads(answer)["predictions"], self.expected, atol=1e-4):
            self.failures.append(f"{status} {answer[:100]!r}")


def ask(good: Good, clients: int) -> float:
    """Sends good requests by so many clients at once; how many seconds they took together."""
    threads = [threading.Thread(target=good.run) for _ in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def soak(good: Good, arguments: argparse.Namespace) -> tuple[float, int]:
    """Good and hostile requests at once; the seconds that the good ones took, and how many hostile ones were sent."""

    def one(number: int) -> bool:
        if time.monotonic() >= good.deadline:
            return False
        hostile(good.server.port, random.Random(number))  # noqa: S311 - repeatable
        return True

    with concurrent.futures.ThreadPoolExecutor(arguments.hostile_clients) as pool:
        hostiles = [pool.submit(one, number) for number in range(arguments.hostile)]
        took = ask(good, arguments.clients)
        return took, sum(sent.result() for sent in hostiles)


def row(what: str, good: Good, took: float, memory: float) -> str:
    """A line of the table."""
    p50, p99 = np.percentile(good.seconds, [50, 99]) * 1000 if good.seconds else (np.nan, np.nan)
    return (
        f"| {what} | {len(good.seconds)} | {len(good.seconds) / took:.1f} | {p50:.1f} | {p99:.1f} "
        f"| {max(good.seconds, default=np.nan) * 1000:.1f} | {memory:.0f} | {len(good.failures)} |"
    )


def measure(
    server: Server, arguments: argparse.Namespace, body: bytes
) -> tuple[list[str], list[str], list[str]]:
    """Everything; the table's lines, remarks on the soak, and what failed."""
    lines = [
        "| what | requests | a second | median ms | p99 ms | longest ms | memory MiB | failed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    failures: list[str] = []
    for clients in CLIENTS:
        good = Good(server, body, arguments.good, 0, arguments.seconds)
        took = ask(good, clients)
        lines.append(row(f"{clients} clients", good, took, server.resident_mib()))
        failures += good.failures
    good = Good(server, body, arguments.good, arguments.changes, 60 * arguments.minutes)
    with Memory(server) as memory:
        took, sent = soak(good, arguments)
    changes = server.number - 1
    what = f"soak: {arguments.clients} clients, {sent} hostile requests, {changes} version changes"
    lines.append(row(what, good, took, server.resident_mib()))
    early, late = memory.quarters()
    highest = max(memory.mib)
    remarks = [
        f"MiB in the soak: {early:.0f} in its second quarter, {late:.0f} in its last, {highest:.0f} at most"
    ]
    asked = (arguments.good, arguments.hostile, arguments.changes)
    if (len(good.seconds), sent, changes) != asked:
        remarks.append(
            f"the clock ended it: {len(good.seconds)}, {sent}, {changes} of {asked}; give --minutes"
        )
    grown = [f"memory grew by {late - early:.0f} MiB"] if late - early > arguments.growth else []
    return lines, remarks, failures + good.failures + grown


def main() -> None:
    """Runs the soak and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True, help="a root, serving or version folder")
    parser.add_argument("--good", type=int, default=100_000)
    parser.add_argument("--hostile", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=20, help="how often a new version appears")
    parser.add_argument("--minutes", type=float, default=9, help="the soak ends after so long in any case")
    parser.add_argument("--seconds", type=float, default=15, help="for each number of clients before it")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--hostile-clients", type=int, default=16)
    parser.add_argument(
        "--growth", type=float, default=64, help="MiB between the second and the last quarter of the soak"
    )
    parser.add_argument("--write", type=pathlib.Path, help="a file for the table, in Markdown")
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3))
    body = json.dumps({"signature_name": "embed_pixels", "instances": image.tolist()}).encode()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(find_version(arguments.root), pathlib.Path(folder))
        try:
            lines, remarks, failures = measure(server, arguments, body)
            alive = server.process.poll() is None
        finally:
            server.process.send_signal(signal.SIGTERM)
            status = server.process.wait(120)
    table = "\n".join(lines) + "\n"
    print("\n".join([table, *remarks]))
    print(f"failed: {len(failures)}; alive: {alive}; status at the end: {status}")
    for failure in failures[:10]:
        print(f"  {failure}")
    if arguments.write:
        arguments.write.write_text(table)
    if failures or not alive or status:
        sys.exit(1)


if __name__ == "__main__":
    main()
