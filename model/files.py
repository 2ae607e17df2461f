"""Location of the package's data, atomic file writes, and locks between processes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DATA = Path(__file__).parent / "data"
TEMPORARY = "_tmp-"  # how the names of unfinished files begin


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary file next to ``path`` to write to; it replaces ``path`` when the block ends.

    After a crash or power failure, ``path`` is either unchanged or complete. If the block raises, the temporary file is
    removed; a killed process may leave a file whose name starts with `TEMPORARY`.

    Raises:
        OSError: the disk is full or fails.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     with written_whole(Path(folder, "notes.txt")) as temporary:
        ...         _ = temporary.write_text("complete")
        ...     [(path.name, path.read_text()) for path in Path(folder).iterdir()]
        [('notes.txt', 'complete')]
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def held_alone(path: Path, refusal: Callable[[str], str]) -> Iterator[None]:
    """Hold a lock file while the block runs. The lock is released when the process ends in any way; the file stays.

    Args:
        path: the lock file; made if it is not there.
        refusal: makes the message of the error from the name of the process that holds the lock.

    Raises:
        ValueError: another process holds the lock.
    """
    from filelock import FileLock, Timeout  # slow, and most commands lock nothing

    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ValueError(refusal(path.read_text(encoding="utf-8") or "another process")) from error
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        lock.release()
