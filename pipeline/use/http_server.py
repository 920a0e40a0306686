"""The HTTP server under `byol serve`: waitress, with what strangers may take of it bounded.

Sockets are read and written by one thread without waiting, so a slow or silent client takes no worker. Workers are in
two lanes, by the size of the request: large ones wait for each other, and small ones for none of them. What is bounded:
connections, the time of one request's arrival, the bytes of one body and of all that have not been answered.
"""

import contextlib
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.receiver import ChunkedReceiver
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import BadRequest

MAX_BODY_BYTES = 64 * 1024 * 1024
# Of all requests that came in and are not answered yet; the longest unfinished ones go first.
MAX_BUFFERED_BYTES = 1024 * 1024 * 1024
LARGE_BODY_BYTES = 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024
# Of the lines between the chunks of a body, which waitress itself does not bound.
MAX_CHUNK_LINE_BYTES = 4096
# A connection takes up to three files, and 1024 is what a process may usually open.
CONNECTIONS = 256
SMALL_WORKERS = 8
LARGE_WORKERS = 2
# A client that sends and takes nothing for so long loses its connection; so does one that keeps a request or an
# answer going by driblets.
IDLE_SECONDS = 30
EXCHANGE_SECONDS = 120
# How long requests that came in before the end may still take, and how long one that is arriving may pause.
GRACE_SECONDS = 60.0
ARRIVAL_SECONDS = 5.0
_TICK_SECONDS = 1
LOG = logging.getLogger("byol.serve")
# Never reached, so that a worker leaves an answer to the socket's thread and goes on.
_NEVER = 1 << 40


class _Parser(HTTPRequestParser):
    """Refuses lines between chunks that do not end."""

    completed: bool

    def received(self, data: bytes) -> int:
        """Takes bytes of the request; waitress's own parser, and the bound."""
        consumed = super().received(data)
        body = self.body_rcv
        lines = (body.control_line, body.trailer) if isinstance(body, ChunkedReceiver) else ()
        if not self.completed and any(len(line) > MAX_CHUNK_LINE_BYTES for line in lines):
            self.error = BadRequest("A line between the chunks does not end")
            self.completed = True
        return int(consumed)


class _JsonErrorTask(ErrorTask):
    """What is refused before it reaches the application is refused in JSON, too."""

    def execute(self) -> None:
        """Writes the answer."""
        error = self.request.error
        self.status = f"{error.code} {error.reason}"
        body = (json.dumps({"error": f"{error.reason}: {error.body}"}) + "\n").encode()
        self.response_headers.append(("Content-Type", "application/json"))
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


class _Channel(HTTPChannel):
    """A connection that knows since when it waits for its client."""

    parser_class = _Parser
    error_task_class = _JsonErrorTask
    waiting_since = 0.0

    def service(self) -> None:
        """Answers one request."""
        super().service()
        self.waiting_since = time.time()

    def waits_for_client(self) -> bool:
        """Whether no request of it is being answered or waits for a worker."""
        return not self.requests

    def buffered_bytes(self) -> int:
        """Of its requests that came in, whole or in part."""
        bodies = [request.body_rcv for request in (*self.requests, self.request) if request is not None]
        return sum(body.__len__() for body in bodies if body is not None)

    def since(self) -> float:
        """When the last answer was given, or the connection opened."""
        return max(self.waiting_since, self.creation_time)


class _Lanes:
    """waitress's dispatcher twice, so that a few large requests leave workers for small ones."""

    def __init__(self) -> None:
        self.small, self.large = ThreadedTaskDispatcher(), ThreadedTaskDispatcher()
        self.small.set_thread_count(SMALL_WORKERS)
        self.large.set_thread_count(LARGE_WORKERS)

    def add_task(self, channel: _Channel) -> None:
        """Queues the channel's next request."""
        request = channel.requests[0]
        size = 0 if request.body_rcv is None else request.body_rcv.__len__()
        # Compressed bytes say nothing of what comes out.
        large = size > LARGE_BODY_BYTES or "CONTENT_ENCODING" in request.headers
        (self.large if large else self.small).add_task(channel)

    def shutdown(self) -> None:
        """Ends the workers; what they have not begun is dropped."""
        self.small.shutdown(timeout=1)
        self.large.shutdown(timeout=1)


class HttpServer(TcpWSGIServer):
    """Serves a WSGI application until `stop`.

    Args:
        application: the WSGI application.
        listener: a bound socket.
    """

    channel_class = _Channel

    def __init__(self, application: Callable[..., Any], listener: socket.socket) -> None:
        self._stopping = threading.Event()
        settings = Adjustments(
            sockets=[listener],
            ident="byol",
            connection_limit=CONNECTIONS + 8,  # the listener and waitress's own trigger count, too
            cleanup_interval=_TICK_SECONDS,
            channel_timeout=IDLE_SECONDS,
            max_request_header_size=MAX_HEADER_BYTES,
            max_request_body_size=MAX_BODY_BYTES + 1,
            outbuf_high_watermark=_NEVER,
            recv_bytes=65536,
            log_socket_errors=False,
        )
        super().__init__(
            application,
            {},
            True,
            listener,
            dispatcher=_Lanes(),
            adj=settings,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.effective_port)

    def serve_forever(self) -> None:
        """Serves until `stop`, then answers what has come in, for `GRACE_SECONDS` at most."""
        while not self._stopping.is_set():
            wasyncore.loop(timeout=_TICK_SECONDS, use_poll=True, map=self._map, count=1)
        self.accepting = False
        self.del_channel()
        self.socket.close()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._busy() and time.monotonic() < deadline:
            wasyncore.loop(timeout=0.1, use_poll=True, map=self._map, count=1)
        self.task_dispatcher.shutdown()
        self.trigger.close()
        wasyncore.close_all(self._map)

    def stop(self) -> None:
        """Ends `serve_forever`; from any thread and from a signal handler."""
        self._stopping.set()
        with contextlib.suppress(OSError):  # it has ended already
            self.trigger.pull_trigger()

    def readable(self) -> bool:
        """Whether to accept connections; at the limit, the one that has waited longest makes room."""
        channels = self.active_channels
        if len(channels) >= CONNECTIONS and not any(channel.will_close for channel in channels.values()):
            waiting = [channel for channel in list(channels.values()) if channel.waits_for_client()]
            if waiting:
                min(waiting, key=_Channel.since).will_close = True
        return bool(super().readable())

    def maintenance(self, now: float) -> None:
        """Closes connections that are silent, that take too long, or that hold too much; each second."""
        super().maintenance(now)
        waiting = [channel for channel in list(self.active_channels.values()) if channel.waits_for_client()]
        for channel in waiting:
            if channel.since() < now - EXCHANGE_SECONDS:
                channel.will_close = True
        held = sum(channel.buffered_bytes() for channel in list(self.active_channels.values()))
        for channel in sorted(waiting, key=_Channel.buffered_bytes, reverse=True):
            if held <= MAX_BUFFERED_BYTES:
                break
            held -= channel.buffered_bytes()
            channel.will_close = True
            LOG.warning(
                "More than %d bytes of requests wait; the longest unfinished is dropped.", MAX_BUFFERED_BYTES
            )

    def handle_error(self) -> None:
        """Logs what went wrong with accepting, and goes on listening; waitress would stop."""
        LOG.error("A connection could not be accepted: %s", sys.exc_info()[1])

    def _busy(self) -> bool:
        """Whether a request is being answered, an answer is on its way, or a request is still arriving."""
        now = time.time()
        return any(
            channel.requests
            or channel.total_outbufs_len
            or (channel.request is not None and channel.last_activity > now - ARRIVAL_SECONDS)
            for channel in list(self.active_channels.values())
        )


class Turns:
    """Lets so many at once, in the order in which they came: who has just had a turn goes behind who waits.

    Args:
        places: how many at once.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: list[threading.Event] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Waits for a turn and holds it."""
        with self._lock:
            mine = threading.Event()
            if self._free:
                self._free -= 1
                mine.set()
            else:
                self._waiting.append(mine)
        mine.wait()
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.pop(0).set()
                else:
                    self._free += 1


def start_server(application: Callable[..., Any], host: str, port: int) -> HttpServer:
    """Opens the port; the caller runs `serve_forever`. Port 0 takes a free one, `server.port`.

    Raises:
        OSError: the port cannot be opened.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return HttpServer(application, socket.create_server((host, port), family=family, backlog=1024))
