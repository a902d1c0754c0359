"""`lasslab fetch` against a local server: broken connections, wrong files, hostile archives, and nothing half-done."""

import gzip
import hashlib
import io
import json
import os
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lasslab import cli
from lasslab.data import download as download_module
from lasslab.data import unpack as unpack_module
from lasslab.data.corpora import CORPORA, load_corpus
from lasslab.data.download import FetchError, download
from lasslab.data.fetch import fetch_corpus
from lasslab.data.manifest import read_manifest
from lasslab.data.unpack import unpack

PAYLOAD = np.random.default_rng(0).bytes(3_000_000)
SHA256 = "sha256:" + hashlib.sha256(PAYLOAD).hexdigest()
MD5 = "md5:" + hashlib.md5(PAYLOAD).hexdigest()


class Server:
    """Files by path, and how badly they are served. `requests` are the paths and ranges that were asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []
        self.sent = 0
        self.ranges = True
        self.etag: str | None = '"one"'
        self.cuts: list[int] = []  # after how many bytes the next answers break off
        self.errors: list[int] = []  # what the next answers are instead
        self.length = True
        self.claimed_length: int | None = None
        self.delay = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range")
        self.requests.append((handler.path, asked))
        content = self.files.get(handler.path.lstrip("/"))
        if self.errors:
            handler.send_error(self.errors.pop(0))
            return
        if content is None:
            handler.send_error(404)
            return
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        condition = handler.headers.get("If-Range")
        if condition and condition != self.etag:
            start = 0
        if start >= len(content) > 0 and start:
            handler.send_error(416)
            return
        body = content[start:]
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.length:
            handler.send_header("Content-Length", str(self.claimed_length or len(body)))
        handler.end_headers()
        cut = self.cuts.pop(0) if self.cuts else len(body)
        for position in range(0, min(cut, len(body)), 50_000):
            piece = body[position : min(position + 50_000, cut)]
            try:
                handler.wfile.write(piece)
            except OSError:
                return
            self.sent += len(piece)
            time.sleep(self.delay)
        handler.close_connection = True


@pytest.fixture
def server():
    server = Server()
    server.files["a.bin"] = PAYLOAD
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def fetched(server, tmp_path):
    """Download `a.bin`; the lines that were said are in `fetched.lines`."""

    def run(**keywords):
        return download(server.url + "a.bin", tmp_path / "a.bin", say=run.lines.append, pause=0.001, **keywords)

    run.lines = []
    return run


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- one file


@pytest.mark.parametrize("digest", [None, SHA256, MD5])
def test_a_file_arrives_whole(server, fetched, tmp_path, digest):
    seen = []
    sha256 = fetched(size=len(PAYLOAD), digest=digest, progress=lambda done, total: seen.append((done, total)))
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD and "sha256:" + sha256 == SHA256
    assert files_in(tmp_path) == ["a.bin"] and len(server.requests) == 1
    assert seen == sorted(seen) and seen[-1] == (len(PAYLOAD), len(PAYLOAD)) and len(seen) > 5


def test_a_broken_connection_is_taken_up_where_it_broke(server, fetched, tmp_path):
    server.cuts = [1_000_000, 500_000, 0]
    fetched(size=len(PAYLOAD), digest=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD
    assert [asked for _, asked in server.requests] == [None, "bytes=1000000-", "bytes=1500000-", "bytes=1500000-"]
    assert server.sent == len(PAYLOAD), "not a byte was sent twice"
    assert len(fetched.lines) == 3


def test_the_next_call_goes_on_too(server, fetched, tmp_path):
    server.cuts = [1_200_000, *[0] * download_module.ATTEMPTS]
    with pytest.raises(FetchError, match="1,200,000 bytes are kept, run the same command again"):
        fetched()
    assert files_in(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    assert (tmp_path / "a.bin.part").read_bytes() == PAYLOAD[:1_200_000]
    fetched()
    assert server.requests[-1][1] == "bytes=1200000-" and server.sent == len(PAYLOAD)
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD and files_in(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_sends_everything_again(server, fetched, tmp_path):
    server.ranges = False
    server.cuts = [1_000_000]
    fetched(digest=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD
    assert server.sent == 1_000_000 + len(PAYLOAD)
    assert any("1,000,000 bytes are fetched again" in line for line in fetched.lines)


def test_a_file_that_changed_meanwhile_is_not_glued_together(server, fetched, tmp_path):
    server.cuts = [1_000_000, *[0] * download_module.ATTEMPTS]
    with pytest.raises(FetchError):
        fetched()
    server.files["a.bin"], server.etag = PAYLOAD[:700_000:-1][:800_000], '"two"'  # and shorter than what is kept
    fetched()  # nobody knows a hash: the validator has to tell
    assert (tmp_path / "a.bin").read_bytes() == server.files["a.bin"]


def test_a_line_that_breaks_often_is_not_given_up_as_long_as_it_brings_something(server, fetched, tmp_path):
    server.cuts = [100_000] * 3 * download_module.ATTEMPTS
    fetched(digest=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD and len(server.requests) == 3 * download_module.ATTEMPTS + 1


def test_without_hash_and_validator_nothing_is_continued(server, fetched, tmp_path):
    server.etag = None
    server.cuts = [1_000_000]
    fetched()
    assert [asked for _, asked in server.requests] == [None, None]
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD
    server.cuts, server.requests = [1_000_000], []
    (tmp_path / "a.bin").unlink()
    fetched(digest=MD5)  # with a hash it may be
    assert [asked for _, asked in server.requests] == [None, "bytes=1000000-"]


def test_a_part_longer_than_the_file_starts_afresh(server, fetched, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(PAYLOAD + b"more")
    fetched(digest=SHA256)
    assert server.requests[0][1] == f"bytes={len(PAYLOAD) + 4}-" and server.requests[1][1] is None
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD
    (tmp_path / "a.bin.part").write_bytes(PAYLOAD)  # stopped between the last byte and the name
    server.requests.clear()
    fetched(size=len(PAYLOAD), digest=SHA256)
    assert server.requests == [], "nothing was left to ask for"


@pytest.mark.parametrize("digest", [SHA256, MD5])
def test_wrong_bytes_are_removed(server, fetched, tmp_path, digest):
    server.files["a.bin"] = PAYLOAD[:-1] + bytes([PAYLOAD[-1] ^ 1])
    with pytest.raises(FetchError, match=f"{digest.partition(':')[0]} .*expected {digest.partition(':')[2]}"):
        fetched(size=len(PAYLOAD), digest=digest)
    assert files_in(tmp_path) == []
    server.files["a.bin"] = PAYLOAD
    fetched(size=len(PAYLOAD), digest=digest)
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD


def test_a_wrong_size_is_seen_before_anything_is_downloaded(server, fetched, tmp_path):
    server.delay = 0.05  # so that the socket's buffers do not hold the whole file
    with pytest.raises(FetchError, match="has 3,000,000 bytes, 2,999,999 were expected"):
        fetched(size=len(PAYLOAD) - 1)
    assert files_in(tmp_path) == [] and server.sent < len(PAYLOAD) / 2


def test_a_size_that_the_server_does_not_tell(server, fetched, tmp_path):
    server.length = False
    with pytest.raises(FetchError, match="longer than the 2,000,000 bytes"):
        fetched(size=2_000_000)
    assert files_in(tmp_path) == []
    with pytest.raises(FetchError, match="kept"):  # it ends too early, each time
        fetched(size=len(PAYLOAD) + 1, digest=SHA256)
    shutil.rmtree(tmp_path)
    tmp_path.mkdir()
    fetched(size=len(PAYLOAD))
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD


def test_a_server_that_promises_more_than_it_sends(server, fetched, tmp_path):
    server.claimed_length = len(PAYLOAD) + 10
    with pytest.raises(FetchError, match="3,000,000 bytes are kept"):
        fetched()
    assert not (tmp_path / "a.bin").exists()


def test_errors_that_stay_and_errors_that_pass(server, fetched, tmp_path):
    with pytest.raises(FetchError, match="none.bin: the server answers 404"):
        download(server.url + "none.bin", tmp_path / "none.bin")
    assert len(server.requests) == 1, "what is not there is not asked for again"
    server.errors = [503, 500]
    fetched(digest=SHA256)
    assert (tmp_path / "a.bin").read_bytes() == PAYLOAD
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(FetchError, match="refused"):
        fetched(digest=SHA256)
    assert files_in(tmp_path) == ["a.bin"]


# --- archives


def make_zip(entries: dict[str, bytes | tuple[bytes, int]]) -> bytes:
    """Names -> contents, or contents and the mode that a Unix zip gives them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            if isinstance(content, tuple):
                content, mode = content
                info.external_attr = mode << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def make_tar(entries: dict[str, bytes | tarfile.TarInfo], *, mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def tar_special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def refused(tmp_path: Path, name: str, content: bytes, words: str, **keywords) -> None:
    """The archive is refused, and not a single file was written, inside or outside of the folder."""
    (tmp_path / name).write_bytes(content)
    before = files_in(tmp_path)
    with pytest.raises(FetchError, match=words) as error:
        unpack(tmp_path / name, tmp_path / "deep" / "folder", **keywords)
    assert "\n" not in str(error.value) and name in str(error.value)
    assert files_in(tmp_path) == before


GOOD = {"top/a.txt": b"one", "top/sub/b.txt": b"two" * 1000}


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz"])
def test_archives_are_unpacked(tmp_path, name):
    mode = "w:" + name.rpartition(".")[2].replace("tar", "")
    (tmp_path / name).write_bytes(make_zip({"top/": b"", **GOOD}) if name == "a.zip" else make_tar(GOOD, mode=mode))
    assert unpack(tmp_path / name, tmp_path / "out") == 2
    assert {path: (tmp_path / "out" / path).read_bytes() for path in files_in(tmp_path / "out")} == GOOD
    unpack(tmp_path / name, tmp_path / "bare", strip=1)
    assert files_in(tmp_path / "bare") == ["a.txt", "sub/b.txt"]


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "a\\..\\..\\evil", "C:\\evil", "C:evil", "\\evil", ".."],
)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_names_that_leave_the_folder_are_refused(tmp_path, name, kind):
    entries = {"top/good.txt": b"good", name: b"evil"}
    content = make_zip(entries) if kind == "zip" else make_tar(entries)
    refused(tmp_path, f"a.{kind}", content, "outside of")
    refused(tmp_path, f"a.{kind}", content, "outside of", strip=1)


def test_links_and_devices_are_refused(tmp_path):
    for kind, target in ((tarfile.SYMTYPE, "/etc"), (tarfile.SYMTYPE, "good.txt"), (tarfile.LNKTYPE, "../../good.txt")):
        entries = {"good.txt": b"good", "link": tar_special("link", kind, target)}
        refused(tmp_path, "a.tar", make_tar(entries, mode="w:"), "'link' is a link or a device")
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        entries = {"good.txt": b"good", "device": tar_special("device", kind)}
        refused(tmp_path, "a.tar", make_tar(entries, mode="w:"), "'device' is a link or a device")
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR):
        refused(tmp_path, "a.zip", make_zip({"good.txt": b"good", "x": (b"/etc", kind | 0o777)}), "'x' is a link")
    # first a link, then a file through it: the classic
    entries = {"way": tar_special("way", tarfile.SYMTYPE, "/tmp"), "way/evil": b"evil"}
    refused(tmp_path, "a.tar", make_tar(entries, mode="w:"), "'way' is a link")


def test_a_link_that_was_in_the_folder_before_is_not_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "top").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a.zip").write_bytes(make_zip(GOOD))
    with pytest.raises(FetchError, match="outside of"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert files_in(tmp_path / "elsewhere") == []


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out" / "top").mkdir(parents=True)
    (tmp_path / "out" / "top" / "a.txt").write_text("mine")
    (tmp_path / "a.zip").write_bytes(make_zip(GOOD))
    with pytest.raises(FetchError, match="'top/a.txt' is there twice, or already in"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert (tmp_path / "out" / "top" / "a.txt").read_text() == "mine" and files_in(tmp_path / "out") == ["top/a.txt"]
    # ./b is b: the second would replace the first
    refused(tmp_path, "b.zip", make_zip({"b": b"1", "./b": b"2"}), "is there twice")
    with pytest.warns(UserWarning, match="Duplicate"):
        twice = io.BytesIO()
        with zipfile.ZipFile(twice, "w") as archive:
            archive.writestr("b", b"1")
            archive.writestr("b", b"2")
    refused(tmp_path, "c.zip", twice.getvalue(), "is there twice")


def test_damaged_archives_are_refused(tmp_path):
    good_zip, good_tar = make_zip(GOOD), make_tar(GOOD)
    refused(tmp_path, "a.zip", good_zip[:-30], "cannot be unpacked")
    refused(tmp_path, "b.zip", b"<html>not found</html>", "cannot be unpacked")
    refused(tmp_path, "a.tar.gz", good_tar[: len(good_tar) // 2], "cannot be unpacked|neither zip nor tar")
    refused(tmp_path, "a.bin", b"no archive" * 1_000, "neither zip nor tar")
    refused(tmp_path, "b.tar.gz", gzip.compress(b"no tar"), "neither zip nor tar")
    refused(tmp_path, "c.zip", make_zip({}), "holds no files")
    locked = bytearray(good_zip)
    for magic, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag of a password
        position = locked.find(magic)
        while position >= 0:
            locked[position + offset] |= 1
            position = locked.find(magic, position + 4)
    refused(tmp_path, "d.zip", bytes(locked), "cannot be unpacked.*password|encrypted")


def test_more_than_the_disk_holds_is_refused(tmp_path, monkeypatch):
    (tmp_path / "a.zip").write_bytes(make_zip(GOOD))
    monkeypatch.setattr(unpack_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6, 2_000))
    with pytest.raises(OSError, match="a.zip need 0.0 GB, .*free: make room, or set LASSLAB_DATA"):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert files_in(tmp_path) == ["a.zip"]


def split_zip(content: bytes, folder: Path, size: int) -> list[Path]:
    """What `zip -s` makes: pieces of the archive, the places in its directory counted within each piece."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        directory = archive.start_dir
    stream = bytearray(b"PK\7\x08" + content)
    places = {}
    for info in infos:
        places[info.filename] = divmod(info.header_offset + 4, size)
    directory += 4
    position = directory
    for info in infos:
        assert stream[position : position + 4] == b"PK\1\2"
        part, offset = places[info.filename]
        struct.pack_into("<H", stream, position + 34, part)
        struct.pack_into("<L", stream, position + 42, offset)
        lengths = struct.unpack_from("<3H", stream, position + 28)
        position += 46 + sum(lengths)
    assert stream[position : position + 4] == b"PK\5\6"
    part, offset = divmod(directory, size)
    last = (len(stream) - 1) // size
    struct.pack_into("<HH", stream, position + 4, last, part)
    struct.pack_into("<L", stream, position + 16, offset)
    paths = []
    for number in range(last + 1):
        name = "a.zip" if number == last else f"a.z{number + 1:02d}"
        (folder / name).write_bytes(stream[number * size : (number + 1) * size])
        paths.append(folder / name)
    return paths


def test_a_zip_in_parts_is_read_without_joining_it(tmp_path):
    entries = {f"top/{number}.bin": PAYLOAD[number * 1000 : (number + 7) * 1000] for number in range(20)}
    paths = split_zip(make_zip(entries), tmp_path, 33_333)
    assert len(paths) == 5 and paths[-1].name == "a.zip"
    assert unpack(tmp_path / "a.zip", tmp_path / "out") == 20
    assert {path: (tmp_path / "out" / path).read_bytes() for path in files_in(tmp_path / "out")} == entries
    paths[1].unlink()
    with pytest.raises(FetchError, match="last of 5 parts, 4 are there"):
        unpack(tmp_path / "a.zip", tmp_path / "again")


@pytest.mark.skipif(shutil.which("zip") is None, reason="needs the zip command")
def test_a_zip_in_parts_by_the_zip_command(tmp_path):
    (tmp_path / "top").mkdir()
    entries = {f"top/{number}.bin": PAYLOAD[number * 20_000 : (number + 5) * 20_000] for number in range(12)}
    for name, content in entries.items():
        (tmp_path / name).write_bytes(content)
    subprocess.run(["zip", "-q", "-r", "-s", "256k", "a.zip", "top"], cwd=tmp_path, check=True)
    assert len(list(tmp_path.glob("a.z*"))) >= 4
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert {path: (tmp_path / "out" / path).read_bytes() for path in files_in(tmp_path / "out")} == entries


def test_7z_needs_a_package_and_gets_the_same_looks(tmp_path):
    py7zr = pytest.importorskip("py7zr", reason="needs py7zr, for Clotho's archives")
    (tmp_path / "source").mkdir()
    for name, content in (("a.txt", b"one"), ("b.txt", b"two")):
        (tmp_path / "source" / name).write_bytes(content)
    with py7zr.SevenZipFile(tmp_path / "a.7z", "w") as archive:
        archive.writeall(tmp_path / "source", "top")
    assert unpack(tmp_path / "a.7z", tmp_path / "out") == 2
    assert files_in(tmp_path / "out") == ["top/a.txt", "top/b.txt"]
    assert (tmp_path / "out" / "top" / "b.txt").read_bytes() == b"two"
    assert not list(tmp_path.glob(".*"))
    (tmp_path / "source" / "link").symlink_to("/etc")
    with py7zr.SevenZipFile(tmp_path / "b.7z", "w") as archive:
        archive.writeall(tmp_path / "source", "top")
    refused(tmp_path, "b.7z", (tmp_path / "b.7z").read_bytes(), "'top/link' is a link")
    refused(tmp_path, "c.7z", (tmp_path / "a.7z").read_bytes()[:-10], "c.7z cannot be unpacked")


# --- a corpus


def write_manifest(path: Path, server: Server, **corpora: dict) -> Path:
    """A manifest of corpora whose files are the server's."""
    entries = {}
    for name, fields in corpora.items():
        parts = {}
        for part, content in fields.pop("parts").items():
            files = [{**file, "url": server.url + file["name"]} for file in content["files"]]
            parts[part] = {**content, "files": files}
        entries[name] = {
            "title": name.upper(), "folder": name.upper(), "page": "https://example.org", "licence": "CC0",
            "parts": parts, **fields,
        }  # fmt: skip
    path.write_text(json.dumps({"corpora": entries}))
    return path


@pytest.fixture
def corpus(server, tmp_path):
    """`toy`: an archive and a table in one part, a second part that is optional, in a data root that does not exist."""
    server.files["toy.zip"] = make_zip({"toy-master/audio/1.wav": PAYLOAD, "toy-master/meta/t.csv": b"a,b\n"})
    server.files["captions.csv"] = b"filename,caption\n"
    server.files["more.tar.gz"] = make_tar({"audio/2.wav": b"more"})
    archive = server.files["toy.zip"]
    zipped = {"name": "toy.zip", "unpack": True, "strip": 1, "size": len(archive)}
    zipped["hash"] = "sha256:" + hashlib.sha256(archive).hexdigest()
    manifest = write_manifest(
        tmp_path / "manifest.json",
        server,
        toy={
            "bring": "bring the clips: {folder}/clips",
            "parts": {
                "main": {
                    "files": [zipped, {"name": "captions.csv", "into": "tables"}],
                    "has": ["audio/1.wav", "tables/captions.csv"],
                },
                "more": {"files": [{"name": "more.tar.gz", "unpack": True}], "has": ["audio/2.wav"], "optional": True},
            },
        },
    )

    def run(parts=None, **keywords):
        run.lines = []
        return fetch_corpus(
            "toy", parts=parts, root=run.root, manifest=manifest, say=run.lines.append, pause=0.001, **keywords
        )

    run.root, run.manifest = tmp_path / "corpora", manifest
    return run


def test_a_corpus_appears_whole_and_says_what_it_is(server, corpus):
    folder = corpus()
    assert folder == corpus.root / "TOY"
    assert files_in(corpus.root) == ["TOY.fetched.json", "TOY/audio/1.wav", "TOY/meta/t.csv", "TOY/tables/captions.csv"]
    assert (folder / "audio" / "1.wav").read_bytes() == PAYLOAD
    said = "\n".join(corpus.lines)
    assert "CC0" in said and f"bring the clips: {folder}/clips" in said and f"TOY is in {folder}" in said
    n_requests = len(server.requests)
    corpus()
    assert len(server.requests) == n_requests and "already in" in corpus.lines[0]


def test_an_unpublished_hash_is_recorded_and_said_and_compared(server, corpus):
    corpus()
    sha256 = hashlib.sha256(server.files["captions.csv"]).hexdigest()
    assert any("no hash is published" in line and sha256 in line and "unchecked" in line for line in corpus.lines)
    assert not any("toy.zip" in line and "no hash" in line for line in corpus.lines)
    record = json.loads((corpus.root / "TOY.fetched.json").read_text())
    assert record[server.url + "captions.csv"]["sha256"] == sha256
    shutil.rmtree(corpus.root / "TOY")
    corpus()
    assert not any("no hash" in line for line in corpus.lines)
    shutil.rmtree(corpus.root / "TOY")
    server.files["captions.csv"] += b"changed"
    with pytest.raises(FetchError, match="no hash is published; this one is of the download of .*TOY.fetched.json"):
        corpus()
    assert not (corpus.root / "TOY").exists()


def test_a_part_is_added_to_what_is_there(server, corpus):
    corpus()
    (corpus.root / "TOY" / "audio" / "mine.wav").write_text("mine")
    corpus(["more"])
    assert (corpus.root / "TOY" / "audio" / "2.wav").read_bytes() == b"more"
    assert (corpus.root / "TOY" / "audio" / "mine.wav").read_text() == "mine"
    assert files_in(corpus.root)[0] == "TOY.fetched.json" and len(files_in(corpus.root)) == 6
    assert len(json.loads((corpus.root / "TOY.fetched.json").read_text())) == 3


def test_what_is_there_is_never_overwritten(server, corpus):
    (corpus.root / "TOY" / "meta").mkdir(parents=True)
    (corpus.root / "TOY" / "meta" / "t.csv").write_text("mine")
    with pytest.raises(FetchError, match="meta/t.csv is already there, and nothing is overwritten"):
        corpus()
    assert files_in(corpus.root / "TOY") == ["meta/t.csv"]
    assert (corpus.root / "TOY" / "meta" / "t.csv").read_text() == "mine"
    (corpus.root / "TOY" / "meta" / "t.csv").unlink()
    n_sent = server.sent
    corpus()  # the downloads were kept
    assert server.sent == n_sent and (corpus.root / "TOY" / "audio" / "1.wav").is_file()


def test_an_interrupted_corpus_goes_on(server, corpus):
    server.cuts = [2_000_000, *[0] * download_module.ATTEMPTS]
    with pytest.raises(FetchError, match="2,000,000 bytes are kept"):
        corpus()
    assert not (corpus.root / "TOY").exists() and (corpus.root / ".TOY.fetching" / "toy.zip.part").is_file()
    corpus()
    assert any("going on after 2,000,000 bytes" in line for line in corpus.lines)
    assert ("/toy.zip", "bytes=2000000-") in server.requests
    assert server.sent == len(server.files["toy.zip"]) + len(server.files["captions.csv"])
    assert files_in(corpus.root)[0] == "TOY.fetched.json" and not (corpus.root / ".TOY.fetching").exists()


@pytest.mark.parametrize("kind", ["bytes", "size", "missing", "escape", "incomplete"])
def test_nothing_appears_when_something_is_wrong(server, corpus, kind):
    good = server.files["toy.zip"]
    manifest = json.loads(corpus.manifest.read_text())
    file = manifest["corpora"]["toy"]["parts"]["main"]["files"][0]
    if kind == "bytes":
        server.files["toy.zip"] = good[:-1] + b"\1"
    elif kind == "size":
        server.files["toy.zip"] = good + b"\0"
    elif kind == "missing":
        del server.files["captions.csv"]
    else:
        bad = make_zip({"toy-master/audio/1.wav": b"x", **({"../../evil": b"x"} if kind == "escape" else {})})
        bad = make_zip({"toy-master/other.wav": b"x"}) if kind == "incomplete" else bad
        server.files["toy.zip"] = bad
        file["size"], file["hash"] = len(bad), "sha256:" + hashlib.sha256(bad).hexdigest()
        corpus.manifest.write_text(json.dumps(manifest))
    with pytest.raises(FetchError):
        corpus()
    assert not (corpus.root / "TOY").exists() and not (corpus.root / "TOY.fetched.json").exists()
    assert not [name for name in files_in(corpus.manifest.parent) if "evil" in name]


def test_no_room_is_noticed_first(server, corpus, monkeypatch):
    monkeypatch.setattr(unpack_module.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 10**6))
    with pytest.raises(OSError, match="TOY .main. and its archives need 0.0 GB"):
        corpus()
    assert server.requests == [] and files_in(corpus.root) == []


def test_two_at_once_do_not_meet(server, corpus):
    server.delay = 0.05
    errors = []

    def first() -> None:
        try:
            corpus()
        except FetchError as error:
            errors.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.requests and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(FetchError, match="being fetched into .* by another process"):
        fetch_corpus("toy", root=corpus.root, manifest=corpus.manifest)
    thread.join()
    assert not errors and (corpus.root / "TOY" / "audio" / "1.wav").is_file()


def test_what_is_fetched_is_what_the_reader_reads(server, tmp_path):
    """From the archive that GitHub makes of ESC-50 to clips."""
    tone = io.BytesIO()
    soundfile.write(tone, np.sin(np.arange(8_000)), 8_000, format="WAV")
    table = "filename,fold,target,category,esc10,src_file,take\n1-100-A-0.wav,1,0,dog,True,100,A\n"
    server.files["ESC-50-master.zip"] = make_zip(
        {"ESC-50-master/meta/esc50.csv": table.encode(), "ESC-50-master/audio/1-100-A-0.wav": tone.getvalue()}
    )
    shipped = read_manifest()["esc50"]
    (file,) = shipped.parts["all"].files
    part = {"files": [{"name": file.name, "unpack": file.unpack, "strip": file.strip}], "has": shipped.parts["all"].has}
    manifest = write_manifest(tmp_path / "m.json", server, esc50={"folder": shipped.folder, "parts": {"all": part}})
    fetch_corpus("esc50", root=tmp_path / "corpora", manifest=manifest)
    (clip,) = load_corpus("esc50", root=tmp_path / "corpora")
    assert clip.label == "dog" and clip.load(sample_rate=8_000).shape == (8_000,)


# --- the command


@pytest.fixture
def command(monkeypatch, capsys, corpus):
    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["lasslab", "fetch", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    run.options = ("--root", corpus.root, "--manifest", corpus.manifest)
    return run


def test_the_command_fetches_and_lists(command, corpus):
    code, out, _ = command(*command.options)
    assert code == 0 and out.splitlines() == ["toy          TOY: main size not published, more size not published; CC0"]
    code, out, err = command("toy", "--part", "main", *command.options)
    assert code == 0 and f"TOY is in {corpus.root / 'TOY'}" in out and err == ""
    assert "main (there)" in command(*command.options)[1]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "unknown corpus 'nothing': choose one of toy"),
        (("toy", "--part", "less"), "toy has the parts main, more, asked for less"),
        (("toy", "--manifest", "none.json"), "no manifest at none.json"),
    ],
)
def test_bad_input_is_one_line(command, corpus, arguments, words):
    options = command.options[:2] if "--manifest" in arguments else command.options
    code, out, err = command(*arguments, *options)
    assert code == 2 and out == "" and len(err.strip().splitlines()) == 1 and words in err
    assert not corpus.root.exists()


def test_a_failed_download_is_one_line_and_exit_code_1(command, server, corpus):
    del server.files["toy.zip"]
    code, _, err = command("toy", *command.options)
    assert code == 1 and len(err.strip().splitlines()) == 1 and "404" in err
    assert files_in(corpus.root) == []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends a signal")
def test_ctrl_c_leaves_what_can_be_gone_on_with(server, corpus):
    server.delay = 0.1
    arguments = ["fetch", "toy", "--root", str(corpus.root), "--manifest", str(corpus.manifest)]
    process = subprocess.Popen(
        [sys.executable, "-m", "lasslab.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell's background jobs ignore Ctrl-C, and so would the program if the tests run in one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    part = corpus.root / ".TOY.fetching" / "toy.zip.part"
    deadline = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped; what was downloaded is kept" in err and "Traceback" not in err
    kept = part.stat().st_size
    assert 0 < kept < len(server.files["toy.zip"]) and not (corpus.root / "TOY").exists()
    server.delay = 0
    corpus()
    assert ("/toy.zip", f"bytes={kept}-") in server.requests
    assert (corpus.root / "TOY" / "audio" / "1.wav").read_bytes() == PAYLOAD


# --- the manifest that ships


def test_every_corpus_has_an_entry_that_can_be_fetched():
    entries = read_manifest()
    assert set(CORPORA[1:]) <= set(entries)
    for name, entry in entries.items():
        assert entry.page.startswith("https://") and entry.licence and entry.parts, name
        names = [file.name for part in entry.parts.values() for file in part.files]
        assert len(set(names)) == len(names), f"{name}: two files of one name would meet"
        assert any(not part.optional for part in entry.parts.values()), name
        for part in entry.parts.values():
            assert part.has
            for file in part.files:
                assert file.url.startswith("https://")
                digits = {"sha256": 64, "md5": 32}
                if file.hash is not None:
                    algorithm, _, value = file.hash.partition(":")
                    assert len(value) == digits[algorithm] and int(value, 16) >= 0, file.name


def test_the_folders_of_the_manifest_are_where_the_readers_look(tmp_path):
    entries = read_manifest()
    for name in CORPORA[1:]:
        with pytest.raises(ValueError, match=f"lasslab fetch {name}") as error:
            load_corpus(name, root=tmp_path)
        assert str(tmp_path / entries[name].folder) in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hash": "crc:1"}, "neither sha256"),
        ({"url": "file:///etc/passwd"}, "not a web address"),
        ({"into": "../x"}, "leaves the corpus' folder"),
        ({"name": "/x"}, "leaves the corpus' folder"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_bad_manifest_is_refused(server, corpus, change, words):
    manifest = json.loads(corpus.manifest.read_text())
    manifest["corpora"]["toy"]["parts"]["main"]["files"][0].update(change)
    corpus.manifest.write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=words):
        corpus()
    for content in ("[]", "{", '{"corpora": {"toy": {}}}'):
        corpus.manifest.write_text(content)
        with pytest.raises(ValueError, match="manifest"):
            corpus()
