"""Downloading one file: with progress, going on after a break, and checked before it gets its name.

Why not pooch, which the audio libraries use: it checks hashes, but starts every download at its first byte and throws
away what a broken one had got (version 1.9). For archives of several gigabytes over a school's network that is no use.
What is needed beyond the standard library's `urllib` is one request header and a file that is kept, so it is here.
"""

import errno
import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from lasslab.signal.files import write_json

CHUNK = 1 << 18
TIMEOUT = 60  # seconds without a byte
ATTEMPTS = 4  # in a row that bring nothing new
USER_AGENT = "lasslab (course on sound separation)"


class FetchError(RuntimeError):
    """A download that did not succeed for a reason outside of the command line: network, server, damaged file."""


def download(
    url: str,
    path: str | Path,
    *,
    size: int | None = None,
    digest: str | None = None,
    progress: Callable[[int, int | None], object] | None = None,
    say: Callable[[str], object] = lambda text: None,
    pause: float = 1.0,
) -> str:
    """Download a file; what a broken download has got stays in `<path>.part`, and the next call goes on from there.

    A broken connection is taken up again at once, as long as each attempt brings something. Going on needs certainty
    that the file is still the same: the server's validator (`If-Range`), or the digest at the end. A server that does
    not know `Range` sends everything again.

    Args:
        url: address, http or https.
        path: where the file will be; written only when everything is right.
        size: its size in bytes, None when unknown.
        digest: `"sha256:…"` or `"md5:…"`, None when unknown. MD5 tells damage, not malice; https is for that.
        progress: called with the bytes that are there and the size, or None where nobody knows it.
        say: called with a line of text for people, when something happens that they should know.
        pause: seconds before the first new attempt; doubled at each one that brings nothing.

    Returns:
        The file's SHA-256, as 64 hexadecimal digits.

    Raises:
        FetchError: no such file, no connection, or not the file that was expected. A file with a wrong digest or size
            is removed: going on with it would never end well.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    fruitless, furthest = 0, _length(part)
    while True:
        try:
            _transfer(url, part, size=size, digest=digest, progress=progress, say=say)
            break
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code not in (408, 429, 500, 502, 503, 504):
                raise FetchError(
                    f"{url}: the server answers {error.code} {error.reason}: see the corpus' page"
                ) from error
            if _is_hopeless(error):
                raise
            fruitless = 0 if _length(part) > furthest else fruitless + 1
            furthest = max(furthest, _length(part))  # a server that starts over again and again gets no further
            if fruitless >= ATTEMPTS:
                reason = getattr(error, "reason", None) or error
                raise FetchError(
                    f"{url}: {reason}; {_length(part):,} bytes are kept, run the same command again to go on"
                ) from error
            say(
                f"no connection after {_length(part):,} bytes ({getattr(error, 'reason', None) or error}), trying again"
            )
            time.sleep(pause * 2 ** max(0, fruitless - 1))
    sha256 = _check(part, url, size=size, digest=digest)
    part.replace(path)
    _state(part).unlink(missing_ok=True)
    return sha256


def _transfer(
    url: str,
    part: Path,
    *,
    size: int | None,
    digest: str | None,
    progress: Callable[[int, int | None], object] | None,
    say: Callable[[str], object],
) -> None:
    """One request; returns when the whole file is in `part`."""
    have, validator = _length(part), _read_validator(part, url)
    if have and (have == size and digest or _read_complete(part, url) == have):
        return
    if have and (not (validator or digest) or size is not None and have > size):
        say(f"{have:,} bytes are fetched again: nothing tells that they belong to the file that the server has now")
        have = 0
    request = urllib.request.Request(url, headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if validator:
            request.add_header("If-Range", validator)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        part.unlink(missing_ok=True)  # what is there is not a beginning of what the server has
        raise ConnectionError("the server has nothing after what is there, starting afresh") from error
    with response:
        start, total = _answer(response, have)
        if have and start == 0:
            say(f"the server sends the file from its beginning: {have:,} bytes are fetched again")
        if size is not None and total is not None and total != size:
            raise FetchError(f"{url} has {total:,} bytes, {size:,} were expected: it has changed, see the corpus' page")
        _write_state(part, url, response, total)
        with part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            have = start
            while chunk := response.read(CHUNK):
                file.write(chunk)
                have += len(chunk)
                if size is not None and have > size:
                    break
                if progress:
                    progress(have, size if size is not None else total)
    if size is not None and have > size:
        _discard(part)
        raise FetchError(f"{url} is longer than the {size:,} bytes expected: it has changed, see the corpus' page")
    expected = size if size is not None else total
    if expected is not None and have < expected:
        raise ConnectionError(f"closed {expected - have:,} bytes before the end")


def _answer(response: http.client.HTTPResponse, asked: int) -> tuple[int, int | None]:
    """Where in the file the answer begins, and how long the file is, if that is known."""
    length = response.headers.get("Content-Length")
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if not match or int(match[1]) != asked:
            raise FetchError(f"{response.url}: the server answers with another range than {asked}-: try again later")
        return asked, None if match[2] == "*" else int(match[2])
    return 0, int(length) if length and length.isdigit() else None


def _check(part: Path, url: str, *, size: int | None, digest: str | None) -> str:
    """The SHA-256 of a finished download; removes it when it is not what was expected."""
    if size is not None and _length(part) != size:
        found = _length(part)
        _discard(part)
        raise FetchError(f"{url} has {found:,} bytes, {size:,} were expected: it is removed, try again")
    sha256 = file_digest(part, "sha256")
    algorithm, _, expected = (digest or "").partition(":")
    if digest:
        found = sha256 if algorithm == "sha256" else file_digest(part, algorithm)
        if found != expected.lower():
            _discard(part)
            raise FetchError(
                f"{url}: {algorithm} {found}, expected {expected}: the file is damaged or has changed; it is removed, "
                "try again, and if that does not help see the corpus' page"
            )
    return sha256


def file_digest(path: str | Path, algorithm: str) -> str:
    """Digest of a file, `"sha256"` or `"md5"`, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def kept_bytes(path: str | Path) -> int:
    """Bytes of an unfinished download to `path`."""
    path = Path(path)
    return _length(path.with_name(path.name + ".part"))


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _state(part).unlink(missing_ok=True)


def _is_hopeless(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS)


def _state(part: Path) -> Path:
    """Beside the part: which file it is a part of."""
    return part.with_name(part.name + ".json")


def _write_state(part: Path, url: str, response: http.client.HTTPResponse, total: int | None) -> None:
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    write_json(_state(part), {"url": url, "validator": validator, "size": total})


def _read_state(part: Path, url: str) -> dict:
    try:
        state = json.loads(_state(part).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and state.get("url") == url else {}


def _read_validator(part: Path, url: str) -> str:
    return str(_read_state(part, url).get("validator") or "")


def _read_complete(part: Path, url: str) -> int | None:
    return _read_state(part, url).get("size")
