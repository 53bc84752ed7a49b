"""Files that are whole or absent: everything this package writes goes through here."""

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

PARTIAL = ".partial"


def write_file(path, data: bytes, keep: str | None = None) -> None:
    """Make `path` a file that holds `data`; whatever happens on the way, it holds that or what it held before.

    The bytes go to a temporary name in the same folder, to the disk, and only then to `path`. A symbolic link stays
    one, and the file that it names is written. What is not a regular file (a device, a pipe) is written into.

    Args:
        keep: a name, in the folder of the file itself, for the one that is replaced, so that one of the two is whole
            even if the disk loses what it was given.

    Raises:
        OSError: the file cannot be written; says which and why. Nothing partial is left.
    """
    try:
        if not _is_regular(path):
            with open(path, "wb") as file:
                file.write(data)
        else:
            _replace(os.path.realpath(path), data, keep)
    except OSError as error:
        raise cannot_be_written(path, error) from error


def append_line(path, line: bytes) -> None:
    """Add `line`, which ends in a newline, to a file; of one that does not fit nothing is left. Raises OSError."""
    try:
        with open(path, "ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                if file.write(line) < len(line):  # the disk had room for a part of it
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except BaseException:
                file.truncate(size)
                raise
    except OSError as error:
        raise cannot_be_written(path, error) from error


def sync(path) -> None:
    """Wait until what was appended to `path` is on the disk. Raises OSError."""
    try:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_be_written(path, error) from error


def check_output(path, overwrite: bool, option: str = "--out") -> None:
    """Find out before the work whether the file that `option` has given can be written.

    Raises:
        OSError: it is a folder, or its own folder is missing or may not be written to, or its name is too long, or it
            is a file already and `overwrite` is false.
    """
    try:
        regular = _is_regular(path)
        folder = Path(os.path.realpath(path)).parent
        if not regular:
            return
        if not folder.is_dir():
            raise FileNotFoundError(f"{option}: there is no folder {Path(path).parent}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, f"its folder {folder} may not be written to")
    except OSError as error:
        raise cannot_be_written(path, error) if error.errno else error from None
    if os.path.exists(path) and not overwrite:
        raise FileExistsError(f"{option}: {path} is there already; --overwrite replaces it")


class FolderLock:
    """Keeps a folder for this process while entered; the system frees that of a process that is killed."""

    _held: ClassVar[set[int]] = set()

    def __enter__(self):
        self._descriptor = None
        return self

    def __exit__(self, *exception):
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            self._held.discard(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    @classmethod
    def leave_to_parent(cls) -> None:
        """Called in a process that has just been forked: it may outlive its parent, whose locks end with it."""
        for descriptor in cls._held:
            os.close(descriptor)
        cls._held.clear()

    def take(self, folder) -> bool:
        """Lock a folder; False if another process has it. Where folders have no locks (Windows), True."""
        try:
            import fcntl
        except ImportError:
            return True
        self._descriptor = os.open(folder, os.O_RDONLY)
        self._held.add(self._descriptor)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._close()
            return False
        except OSError:  # a file system without locks
            pass
        return True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=FolderLock.leave_to_parent)


def remove_partial_files(folder: Path) -> None:
    """Delete what a process that was killed while it wrote has left in `folder`."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)


def _is_regular(path) -> bool:
    """Whether `path` is a regular file or nothing yet. Raises OSError for a folder, or a path that cannot be."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "expected a file, got a folder")
    return stat.S_ISREG(mode)


def _replace(path: str, data: bytes, keep: str | None) -> None:
    mode = None
    if os.path.exists(path):
        if not os.access(path, os.W_OK):  # renaming over it would not ask
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        mode = stat.S_IMODE(os.stat(path).st_mode)
    folder = os.path.dirname(path)
    partial = os.path.join(folder, f".{secrets.token_hex(8)}{PARTIAL}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with open(descriptor, "wb") as file:
            if mode is not None:
                os.chmod(partial, mode)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and mode is not None:
            os.replace(path, os.path.join(folder, keep))
        os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(partial)
        raise
    _sync_folder(folder)


def _sync_folder(folder: str) -> None:
    """Put the folder's new entry on the disk; where the system cannot, the file is whole at either name anyway."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def cannot_be_written(path, error: OSError) -> OSError:
    """`error` in words that name `path`."""
    return OSError(error.errno, f"cannot be written: {error.strerror or error}", str(path))
