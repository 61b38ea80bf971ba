"""Large files from plain web servers: resumed where they stopped, verified before use."""

import http.client
import shutil
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from upres.errors import OutputError, ResourceError, WeightsError, is_disk_full, os_errors
from upres.hashing import sha256_of
from upres.progress import Transfer

_BLOCK = 1 << 20
_TIMEOUT = 60.0
ELSEWHERE = "set UPRES_DATA to another folder"
_PATIENCE = 5  # attempts in a row that bring nothing
# What zipfile raises for damage of one kind or another.
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError)


def download(
    url: str,
    folder: Path,
    *,
    size: int,
    sha256: str,
    progress: Transfer,
    pause: float = 2.0,
) -> Path:
    """A verified file in ``folder``, named as in the address.

    What arrived stays in a ``.part`` file, and the next call goes on from there.

    Args:
        size: of the whole, in bytes.
        sha256: of the whole, in hexadecimal.
        progress: told the bytes that are there.
        pause: seconds before asking again after the connection broke; doubled each time.

    Raises:
        WeightsError: the server cannot be reached, or what it sent is not what was published.
        OutputError, ResourceError: the folder cannot be written; the disk is full.
    """
    name = url.rpartition("/")[2]
    target, part = folder / name, folder / f"{name}.part"
    with _on_disk(folder, name):
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file() and sha256_of(target) != sha256:
            target.unlink()
        if not target.is_file():
            have = part.stat().st_size if part.is_file() else 0
            free = shutil.disk_usage(folder).free
            if size - have + _BLOCK > free:
                raise ResourceError(
                    f"{name} takes {(size - have) / 1e9:.2f} GB more, {folder} has "
                    f"{free / 1e9:.2f} GB free",
                    f"free disk space, or {ELSEWHERE}",
                )
            _receive(
                url, part, size, lambda done: progress(f"downloading {name}", done, size), pause
            )
            _verify(part, sha256, url)
            part.replace(target)
    return target


def _receive(
    url: str, part: Path, size: int, progress: Callable[[int], None], pause: float
) -> None:
    fruitless = 0
    while True:
        before = part.stat().st_size if part.is_file() else 0
        if before > size:  # not the file that is asked for now
            part.unlink()
            before = 0
        if before == size:
            return
        try:
            _append(url, part, before, size, progress)
            reason = "the connection was closed early"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise WeightsError(
                    f"{url} cannot be downloaded (HTTP {error.code} {error.reason})",
                    "get it in another way, and give its folder",
                ) from error
            reason = f"HTTP {error.code}"
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, OSError) as error:
            if is_disk_full(error):
                raise
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        now = part.stat().st_size if part.is_file() else 0
        if now == size:
            return
        fruitless = 0 if now > before else fruitless + 1
        if fruitless == _PATIENCE:
            raise WeightsError(
                f"{url} cannot be downloaded ({reason}); {now / 1e6:.0f} MB are kept",
                "ask again later, or get it in another way and give its folder",
            )
        time.sleep(pause * 2**fruitless)


def _append(url: str, part: Path, start: int, size: int, progress: Callable[[int], None]) -> None:
    """Add what the server sends, up to ``size``; what is there is only given up for the whole."""
    if not url.startswith(("https://", "http://")):
        raise WeightsError(f"{url} is not a web address", "check the catalog")
    request = urllib.request.Request(  # noqa: S310 - checked above
        url, headers={"User-Agent": "upres"}
    )
    if start:
        request.add_header("Range", f"bytes={start}-")
    with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - checked above
        # A server that knows no ranges sends all of it again; a hotel's sends a page of its own.
        resumed = answer.status == http.HTTPStatus.PARTIAL_CONTENT
        said = answer.headers.get("Content-Range", "") if resumed else answer.length
        if said not in ((f"bytes {start}-{size - 1}/{size}",) if resumed else (None, size)):
            raise http.client.HTTPException(f"the server offers {said}, not {size} bytes")
        # What comes from the beginning again takes the place of what there is once it is more.
        place = part if resumed or not start else part.with_name(f"{part.name}-again")
        with _on_disk(place, part.stem):
            file = place.open("ab" if resumed else "wb")
        try:
            with file:
                while block := answer.read(min(_BLOCK, size - file.tell())):
                    with _on_disk(place, part.stem):
                        file.write(block)
                        file.flush()
                    progress(file.tell())
        finally:
            if place != part and place.is_file():
                if place.stat().st_size > start:
                    place.replace(part)
                place.unlink(missing_ok=True)


@contextmanager
def _on_disk(place: Path, name: str) -> Iterator[None]:
    """What the disk says, which is not for asking the server again.

    Args:
        name: of what is downloaded.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise ResourceError(
                f"the disk is full; what arrived of {name} is kept", "free disk space and ask again"
            ) from error
        raise OutputError(f"{place} cannot be written ({error.strerror})", ELSEWHERE) from error


def _verify(part: Path, sha256: str, url: str) -> None:
    actual = sha256_of(part)
    if actual != sha256:
        part.unlink()
        raise WeightsError(
            f"{url} has SHA-256 {actual[:16]}..., published was {sha256[:16]}...; it is not used",
            "ask again; if it stays so, the file was changed and should not be trusted",
        )


def unpack(archive: Path, folder: Path, holds: str, *, progress: Transfer) -> None:
    """Unpack a zip file that holds one folder; that folder appears only when it is whole.

    Raises:
        WeightsError: it is no zip file, or holds something else.
        OutputError, ResourceError: the folder cannot be written; the disk is full.
    """
    beside = folder / f".{holds}.part"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        with os_errors(folder, ELSEWHERE), zipfile.ZipFile(archive) as zipped:
            members = zipped.infolist()
            needed = sum(member.file_size for member in members)
            if needed + _BLOCK > shutil.disk_usage(folder).free:
                raise ResourceError(
                    f"{archive.name} unpacks to {needed / 1e9:.2f} GB, more than {folder} has free",
                    f"free disk space, or {ELSEWHERE}",
                )
            strangers = [m.filename for m in members if not m.filename.startswith(f"{holds}/")]
            if strangers or not members:
                raise WeightsError(
                    f"{archive} holds {strangers[0] if strangers else 'nothing'}, not {holds}/",
                    "remove it and ask again",
                )
            done = 0
            for member in members:
                zipped.extract(member, beside)
                done += member.file_size
                progress(f"unpacking {holds}", done, needed)
            (beside / holds).replace(folder / holds)
    except _BAD_ZIP as error:
        raise WeightsError(
            f"{archive} is no zip file that can be unpacked ({error})", "remove it and ask again"
        ) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
