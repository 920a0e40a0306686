"""`byol serve` under good and hostile requests at once, with versions that change, in a process of its own.

    python -m benchmarks.serve_soak --root runs/demo                                    100,000 good, 10,000 hostile
    python -m benchmarks.serve_soak --root runs/demo --good 500 --hostile 100 --changes 2

Prints requests a second and latency of the good requests, the server's memory, and what failed; the exit status is 1 if
a good request failed, an answer was another model's, or the server ended. The root itself is only read: versions are
copies of its served one, published into a temporary folder.
"""

import argparse
import base64
import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import queue
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np

from pipeline.use.encoder import find_version

PATH = "/v1/models/byol:predict"
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


def hostile(port: int, draw: random.Random) -> None:
    """One request of a kind that is drawn; what comes back does not matter."""
    cut = [
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n40\r\nabc",
        HEAD + b"Content-Length: 1000\r\n\r\n{",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 10_000,
        b"\x00" * 100 + b"\r\n\r\n",
        HEAD + b"Content-Length: 99999999999\r\n\r\n",
    ]
    bodies = [
        b"[" * 100_000,
        b'{"instances":[' + b"[]," * 3_000_000 + b"0]}",
        b'{"instances":["no image"]}',
        b'{"signature_name":"embed_pixels","instances":[[1,2],[3]]}',
        b'{"instances":[{"b64":"' + base64.b64encode(draw.randbytes(1000)) + b'"}]}',
    ]
    whole = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
    data = draw.choice(cut + whole)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        if draw.random() < 0.5:
            connection.recv(1000)
        if draw.random() < 0.05:
            time.sleep(draw.uniform(0, 2))


class Good:
    """The good clients: what they still have to send, how long each answer took, and what failed."""

    def __init__(self, server: Server, body: bytes, requests: int, changes: int) -> None:
        self.server, self.body, self.changes = server, body, changes
        self.every = max(requests // (changes + 1), 1)
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
            while True:
                number = self.left.get_nowait()
                if number % self.every == 0 and number // self.every <= self.changes:
                    self.server.change()
                self.send(client)

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


def load(server: Server, arguments: argparse.Namespace, body: bytes) -> tuple[Good, float]:
    """Sends everything; the good clients, and how many seconds they took together."""
    good = Good(server, body, arguments.good, arguments.changes)
    threads = [threading.Thread(target=good.run) for _ in range(arguments.clients)]
    with concurrent.futures.ThreadPoolExecutor(arguments.hostile_clients) as pool:
        draws = [random.Random(number) for number in range(arguments.hostile)]  # noqa: S311 - repeatable
        hostiles = [pool.submit(hostile, server.port, draw) for draw in draws]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - began
        for one in hostiles:
            one.result()
    return good, took


def main() -> None:
    """Runs the soak and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=pathlib.Path, required=True, help="a root, serving or version folder")
    parser.add_argument("--good", type=int, default=100_000)
    parser.add_argument("--hostile", type=int, default=10_000)
    parser.add_argument("--changes", type=int, default=20, help="how often a new version appears")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--hostile-clients", type=int, default=4)
    arguments = parser.parse_args()
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3))
    body = json.dumps({"signature_name": "embed_pixels", "instances": image.tolist()}).encode()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(find_version(arguments.root), pathlib.Path(folder))
        try:
            for _ in range(100):
                Client(server.port, body).ask()
            before = server.resident_mib()
            good, took = load(server, arguments, body)
            alive = server.process.poll() is None
            after = server.resident_mib() if alive else float("nan")
        finally:
            server.process.send_signal(signal.SIGTERM)
            status = server.process.wait(120)
    seconds, failures = good.seconds, good.failures
    p50, p99 = np.percentile(seconds, [50, 99]) * 1000
    print(f"{len(seconds)} good requests of {arguments.clients} clients: {len(seconds) / took:.1f} a second")
    print(f"latency: median {p50:.1f} ms, 99th percentile {p99:.1f} ms, longest {max(seconds) * 1000:.1f} ms")
    print(f"{arguments.hostile} hostile requests, {arguments.changes} version changes")
    print(f"memory: {before:.0f} MiB before, {after:.0f} MiB after")
    print(f"failed: {len(failures)}; alive: {alive}; status at the end: {status}")
    for failure in failures[:10]:
        print(f"  {failure}")
    if failures or not alive or status:
        sys.exit(1)


if __name__ == "__main__":
    main()
