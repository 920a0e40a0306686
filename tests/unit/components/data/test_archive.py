import contextlib
import hashlib
import http.server
import io
import random
import re
import tarfile
import threading
from typing import cast

import pytest

from components.data import archive

FILES = {"data_batch_1.bin": 3 * 3073, "test_batch.bin": 2 * 3073}
FOLDER = "cifar-10-batches-bin"


def _contents():
    return {name: random.Random(name).randbytes(size) for name, size in FILES.items()}  # noqa: S311


def _tar(members):
    """A gzipped tar of (TarInfo, content) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _info(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def _good_members():
    folder = (_info(FOLDER, tarfile.DIRTYPE), b"")
    return [folder, *((_info(f"{FOLDER}/{name}"), content) for name, content in _contents().items())]


class _Server(http.server.ThreadingHTTPServer):
    """Serves one body at any path.

    Attributes:
        body: what is served.
        ranges: whether a Range is honoured.
        stop_after: bytes after which the connection is cut, once.
        seen: the Range header of each request.
    """

    def __init__(self, body):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.body, self.ranges, self.stop_after, self.seen = body, True, None, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/archive.tar.gz"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        server = cast("_Server", self.server)
        wanted = self.headers.get("Range")
        server.seen.append(wanted)
        start = int(re.findall(r"bytes=(\d+)-", wanted)[0]) if wanted and server.ranges else 0
        if start and start >= len(server.body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        body = server.body[start:]
        if server.stop_after is not None:
            body, server.stop_after = body[: server.stop_after], None
        self.wfile.write(body)

    def log_message(self, *arguments):
        """Keeps the tests' output clean."""


@pytest.fixture
def serve():
    """A function that starts a server with a body."""
    with contextlib.ExitStack() as stack:

        def start(body):
            server = stack.enter_context(_Server(body))
            thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


def _download(folder, server, md5=None, progress=None):
    expected = md5 or hashlib.md5(server.body, usedforsecurity=False).hexdigest()
    return archive.download_cifar10(folder, server.url, progress, expected, FILES)


def test_a_good_archive_is_unpacked_and_not_fetched_twice(tmp_path, serve):
    server, seen = serve(_tar(_good_members())), []
    folder = _download(tmp_path, server, progress=lambda received, total: seen.append((received, total)))
    assert folder == tmp_path / FOLDER
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == _contents()
    assert seen[-1] == (len(server.body), len(server.body))
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]
    _download(tmp_path, server)
    assert server.seen == [None]


def test_a_cut_download_resumes_where_it_stopped(tmp_path, serve):
    server = serve(_tar(_good_members()))
    server.stop_after = 100
    with pytest.raises(archive.DownloadError, match=rf"ended after 100 of {len(server.body)} bytes"):
        _download(tmp_path, server)
    assert not (tmp_path / FOLDER).exists()
    assert (_download(tmp_path, server) / "test_batch.bin").stat().st_size == FILES["test_batch.bin"]
    assert server.seen == [None, "bytes=100-"]


def test_a_server_without_ranges_starts_afresh(tmp_path, serve):
    server = serve(_tar(_good_members()))
    server.stop_after, server.ranges = 100, False
    with pytest.raises(archive.DownloadError):
        _download(tmp_path, server)
    assert _download(tmp_path, server).is_dir()


def test_a_download_that_was_complete_is_only_verified(tmp_path, serve):
    server = serve(_tar(_good_members()))
    (tmp_path / "cifar-10-binary.tar.gz.part").write_bytes(server.body)
    assert _download(tmp_path, server).is_dir()


def test_a_wrong_checksum_unpacks_nothing_and_starts_afresh(tmp_path, serve):
    server = serve(_tar(_good_members()))
    with pytest.raises(archive.ArchiveError, match=f"expected {'0' * 32}"):
        _download(tmp_path, server, md5="0" * 32)
    assert list(tmp_path.iterdir()) == []
    assert _download(tmp_path, server).is_dir()


def test_a_changed_file_on_the_server_is_noticed_after_a_resume(tmp_path, serve):
    server = serve(_tar(_good_members()))
    server.stop_after = 100
    with pytest.raises(archive.DownloadError):
        _download(tmp_path, server)
    md5 = hashlib.md5(server.body, usedforsecurity=False).hexdigest()
    server.body = server.body[:100] + bytes(len(server.body) - 100)
    with pytest.raises(archive.ArchiveError, match="has MD5"):
        _download(tmp_path, server, md5)
    assert list(tmp_path.iterdir()) == []


def test_an_endless_server_is_stopped(tmp_path, serve, monkeypatch):
    monkeypatch.setattr(archive, "_MAX_ARCHIVE_BYTES", 1000)
    with pytest.raises(archive.DownloadError, match="announces 2000 bytes, expected at most 1000"):
        _download(tmp_path, serve(bytes(2000)))


def test_no_server_and_no_such_address(tmp_path, serve):
    server = serve(b"")
    port = server.server_port
    server.shutdown()
    server.server_close()
    with pytest.raises(archive.DownloadError, match="Run the same command again"):
        archive.download_cifar10(tmp_path, f"http://127.0.0.1:{port}/", None, "0" * 32, FILES)
    with pytest.raises(ValueError, match="expected an http or https address"):
        archive.download_cifar10(tmp_path, "file:///etc/passwd")


_RECORD = f"{FOLDER}/data_batch_1.bin"
ATTACKS = {
    "parent folder": ([(_info("../evil"), b"x")], "Unexpected member '../evil'"),
    "parent folder inside": ([(_info(f"{FOLDER}/../../evil"), b"x")], "Unexpected member"),
    "absolute path": ([(_info("/tmp/evil"), b"x")], "Unexpected member '/tmp/evil'"),  # noqa: S108
    "other file": ([(_info(f"{FOLDER}/evil.py"), b"x")], "Unexpected member"),
    "sub-folder": ([(_info(f"{FOLDER}/deep", tarfile.DIRTYPE), b"")], "Unexpected member"),
    "symbolic link": ([(_info(_RECORD, tarfile.SYMTYPE, "/etc/passwd"), b"")], "no regular file"),
    "hard link": ([(_info(_RECORD, tarfile.LNKTYPE, "/etc/passwd"), b"")], "no regular file"),
    "linked folder": ([(_info(FOLDER, tarfile.SYMTYPE, "/tmp"), b"")], "Unexpected member"),  # noqa: S108
    "device": ([(_info(_RECORD, tarfile.CHRTYPE), b"")], "no regular file"),
    "oversized record file": (
        [(_info(_RECORD), bytes(FILES["data_batch_1.bin"] + 1))],
        "has 9220 bytes, expected 9219",
    ),
    "short record file": ([(_info(_RECORD), b"x")], "has 1 bytes, expected 9219"),
    "oversized label names": (
        [(_info(f"{FOLDER}/batches.meta.txt"), bytes(20_000))],
        "expected at most 16384",
    ),
    "same file twice": ([_good_members()[1]] * 2, "twice"),
    "missing file": ([_good_members()[1]], r"lacks test_batch\.bin"),
    "nothing": ([], "lacks data_batch_1"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_malicious_archive_writes_nothing(tmp_path, attack):
    members, message = ATTACKS[attack]
    path, target = tmp_path / "archive.tar.gz", tmp_path / "inner" / FOLDER
    path.write_bytes(_tar(members))
    with pytest.raises(archive.ArchiveError, match=message):
        archive.unpack(path, target, FILES)
    assert sorted(found.name for found in tmp_path.rglob("*")) == ["archive.tar.gz", "inner"]


@pytest.mark.parametrize("content", [b"", b"not an archive", _tar(_good_members())[:5000]])
def test_what_is_no_whole_archive_is_named(tmp_path, content):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(content)
    with pytest.raises(archive.ArchiveError, match="damaged, or no gzipped tar archive"):
        archive.unpack(path, tmp_path / FOLDER, FILES)
    assert [found.name for found in tmp_path.iterdir()] == ["archive.tar.gz"]


def test_an_existing_folder_is_not_overwritten(tmp_path, serve):
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="not an empty folder"):
        _download(tmp_path, serve(_tar(_good_members())))
    assert (tmp_path / FOLDER / "mine.txt").read_text() == "precious"


def test_the_official_sizes_add_up():
    assert archive.RECORD_FILES["test_batch.bin"] == 30_730_000
    assert sum(archive.RECORD_FILES.values()) == 60_000 * 3073
