"""Whether files on disk are still those that were read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

_Stamps = tuple[tuple[int, int, int], ...]

_NOTHING: Final[_Stamps] = ()
"""At least one file is not there."""


class FileStamps:
    """Inode, change time and size of files: of those that were there when `have_changed` was asked last.

    Args:
        paths: The files; they belong together.
    """

    def __init__(self, *paths: Path) -> None:
        self._paths: Sequence[Path] = paths
        self._seen = self._look()

    def have_changed(self) -> bool:
        """Return whether a file was replaced, written, or has come or gone since this was asked last."""
        seen, self._seen = self._seen, self._look()
        return seen != self._seen

    def _look(self) -> _Stamps:
        found = []
        for path in self._paths:
            try:
                status = path.stat()
            except OSError:
                return _NOTHING
            found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)
