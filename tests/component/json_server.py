"""What servers on localhost that stand for another's JSON API have in common."""

import contextlib
import http.server
import json
import threading


class JsonHandler(http.server.BaseHTTPRequestHandler):
    """Answers with JSON."""

    def _send(self, status, message):
        content = json.dumps(message).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def served(api):
    """Lets a server answer, and ends it."""
    # It looks this often whether it is to end, by itself twice a second.
    threading.Thread(target=api.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield api
    finally:
        api.shutdown()
        api.server_close()
