"""Where a run is kept: a folder on disk, or the objects with a common prefix in an object store (S3, Google).

On disk a run is a `pathlib.Path`. `StorePath` implements as much of that interface as a run needs, so that the rest of
the program need not distinguish the two. Atomic writes go through `write_whole`.
"""

from __future__ import annotations

import fnmatch
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

from model.files import written_whole

if TYPE_CHECKING:
    from pyarrow import fs

SCHEMES = ("s3", "gs")
JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray in processes started by `ray job submit`
# Fragments of the stores' error messages -> remedy.
REMEDIES = {
    ("ACCESS_DENIED", "SIGNATURE_DOES_NOT_MATCH", "INVALID_ACCESS_KEY_ID", "EXPIRED_TOKEN", "OAuth2"): (
        "The store refuses these credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, choose a profile of "
        "~/.aws with AWS_PROFILE, or give the machine a role with permission to list, read, write and delete there"
    ),
    ("NO_SUCH_BUCKET", "404"): "There is no such bucket: create it first",
    ("NETWORK_CONNECTION", "curlCode", "timeout"): "The store cannot be reached from here",
}


@dataclass(frozen=True)
class StorePath:
    """A path in an object store, made by `run_path` from an address.

    Attributes:
        scheme: s3 or gs.
        key: bucket and name.
        query: options of the address, for example ``region=eu-central-1``.
        filesystem: pyarrow's, which holds the credentials.
    """

    scheme: str
    key: str
    query: str
    filesystem: fs.FileSystem = field(repr=False, compare=False)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}" + (f"?{self.query}" if self.query else "")

    def __truediv__(self, name: str) -> StorePath:
        return replace(self, key=f"{self.key}/{name}")

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The last part without its suffix."""
        return Path(self.name).stem

    def with_name(self, name: str) -> StorePath:
        """The path with another last part."""
        return replace(self, key=f"{self.key.rpartition('/')[0]}/{name}")

    def exists(self) -> bool:
        """Whether there is an object of this name."""
        from pyarrow import fs

        with self._explained():
            return bool(self.filesystem.get_file_info(self.key).type == fs.FileType.File)

    is_file = exists

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Objects directly below whose last part matches."""
        for info in self._below():
            if info.is_file and fnmatch.fnmatchcase(info.base_name, pattern):
                yield replace(self, key=info.path)

    def read_bytes(self) -> bytes:
        """Content of the object; raises FileNotFoundError if there is none."""
        with self._explained(), self.filesystem.open_input_stream(self.key) as stream:
            return bytes(stream.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        """Content of the object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> int:
        """Write the object atomically: others see either the new or the previous content."""
        with self._explained(), self.filesystem.open_output_stream(self.key) as stream:
            stream.write(content)
        return len(content)

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete the object."""
        try:
            with self._explained():
                self.filesystem.delete_file(self.key)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def changed(self) -> dict[str, float]:
        """Write times (seconds of the store's clock) of the objects directly below, by last part of the name."""
        return {info.base_name: info.mtime_ns / 1e9 for info in self._below() if info.is_file}

    def mkdir(self, parents: bool = True, exist_ok: bool = True) -> None:
        """Do nothing: an object store has no folders."""

    def _below(self) -> list[fs.FileInfo]:
        from pyarrow import fs

        with self._explained():
            found: list[fs.FileInfo] = self.filesystem.get_file_info(fs.FileSelector(self.key, allow_not_found=True))
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        import pyarrow as pa

        try:
            yield
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            said = str(error).split(" (Request ID")[0].strip(". ")
            helps = [text for signs, text in REMEDIES.items() if any(sign in said for sign in signs)]
            raise OSError(". ".join([f"{self}: {said}", *helps[:1]])) from error


RunPath: TypeAlias = Path | StorePath


def run_path(place: str | RunPath) -> RunPath:
    """Parse the location of a run: a path, ``file://…``, ``s3://bucket/name`` or ``gs://bucket/name``.

    Options follow a question mark, as defined by pyarrow: ``s3://bucket/name?region=eu-central-1``. Credentials are
    taken from where the tools of AWS and Google look for them.

    Raises:
        ValueError: the address is none of these, or contains a key.
    """
    if isinstance(place, StorePath):
        return place
    scheme, separator, _ = str(place).partition(":/")
    if not separator or os.sep in scheme:
        return Path(place)
    if isinstance(place, Path):
        raise ValueError(f"{place}: give an address as a string, not as a Path, which removes one of the two slashes")
    parts = urlsplit(place)
    if scheme == "file":
        return Path(url2pathname(parts.path))
    if scheme not in SCHEMES:
        raise ValueError(f"{place}: a run must be a folder or an address that begins with s3:// or gs://")
    if "@" in parts.netloc and scheme == "s3":
        raise ValueError("an address must not contain a key, because logs would show it: set AWS_ACCESS_KEY_ID instead")
    key = (parts.netloc + parts.path).rstrip("/")
    if "/" not in key:
        raise ValueError(f"{place}: give a path in the bucket, for example {scheme}://{key or 'bucket'}/runs/li-si")
    return StorePath(scheme, key, parts.query, _filesystem(place))


def _filesystem(address: str) -> fs.FileSystem:
    import pyarrow as pa
    from pyarrow import fs

    # S3: with delayed opening, a small object is written in a single request.
    # Google: without a limit, pyarrow spends a quarter of an hour looking for credentials.
    option = {"s3": "allow_delayed_open=true", "gs": "retry_limit_seconds=30"}[address.partition(":")[0]]
    if option.partition("=")[0] not in address:
        address += ("&" if "?" in address else "?") + option
    try:
        return fs.FileSystem.from_uri(address)[0]
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{address}: {error}") from error


def write_whole(path: RunPath, content: bytes) -> None:
    """Write a file or object atomically: if the process dies, it is either unchanged or complete and on disk.

    Raises:
        OSError: the disk is full or fails, or the store refuses.
    """
    if isinstance(path, StorePath):
        path.write_bytes(content)
        return
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise unwritten(path, error) from error


def rename(path: RunPath, name: str) -> None:
    """Rename a file within its folder."""
    if isinstance(path, StorePath):
        path.filesystem.move(path.key, path.with_name(name).key)
        return
    os.replace(path, path.with_name(name))


def unwritten(path: Path, error: OSError) -> OSError:
    """Error for a full or failing disk, with its consequences for the run."""
    what = f"{path} cannot be written. Stored results are unaffected; free some space and rerun the same command"
    return OSError(error.errno, f"{os.strerror(error.errno or 0)}: {what}")


def require_lasting(run: RunPath) -> None:
    """Refuse a folder that would be lost with a Ray job: jobs may run in a temporary folder, which is deleted.

    Raises:
        ValueError: the path is relative or temporary, inside a Ray job.
    """
    if JOB not in os.environ or isinstance(run, StorePath):
        return
    if not run.is_absolute() or run.resolve().is_relative_to(Path(tempfile.gettempdir()).resolve()):
        raise ValueError(
            f"--run {run}: results in this folder would be lost with the Ray job; give an absolute path on a permanent "
            "disk, or an address such as s3://bucket/runs/li-si"
        )


def is_run(place: RunPath) -> bool:
    """Whether this can be a run rather than a single file."""
    return isinstance(place, StorePath) or place.is_dir()


def beside(run: RunPath) -> Path:
    """The folder for figures, tables and other files made from a run.

    The run's own folder; for a run in an object store, a folder of the same name in the working directory.
    """
    return run if isinstance(run, Path) else Path(run.name)
