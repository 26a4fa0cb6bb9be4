"""Where the database is, and as whom to connect: a URL, or what a file says whenever the database refuses it.

Who rotates a password changes database and file one after the other, and a file that is
mounted follows late. So neither is believed blindly: the URL by which a connection was made holds.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from forge_jobs.errors import ForgeError, InvalidInput, InvalidSetting, StorageUnavailable, StorageUnusable
from forge_jobs.settings import url_file
from forge_jobs.settings.database_url import POSTGRES, redact

T = TypeVar("T")


class Address:
    """The URL of one database; `changed(url)` is told of another one that answers, without its password."""

    def __init__(self, url: str, *, file: Path | None, changed: Callable[[str], None]) -> None:
        self.url = url  # with its password
        self.shown = redact(url)
        self._file = file
        self._changed = changed
        self._is_in_doubt = False  # the last try did not come to an end, or to a bad one

    def doubt(self) -> None:
        """The file is asked before the next connection is made."""
        self._is_in_doubt = True

    async def reached(self, connect: Callable[[str], Awaitable[T]]) -> T:
        """Return what `connect` returns for the URL, or for that in the file when it raises a ForgeError.

        Raises StorageUnavailable where waiting may cure it, as a file may come to say something else.
        """
        if self._file is None:
            return await connect(self.url)
        # Whoever waits for `connect` may be cancelled, so the doubt comes first.
        is_in_doubt, self._is_in_doubt = self._is_in_doubt, True
        first = (self._said() or self.url) if is_in_doubt else self.url
        try:
            found = await connect(first)
        except ForgeError as refused:
            second = self.url if first != self.url else self._said()
            if second in (None, first):
                raise self._curable(refused, second) from refused.__cause__
            try:
                found = await connect(second)
            except ForgeError as error:
                # What the file says is what is meant to hold.
                meant = error if first == self.url else refused
                raise self._curable(meant, second) from meant.__cause__
            first = second
        self._is_in_doubt = False
        if first != self.url:
            self.url, self.shown = first, redact(first)
            self._changed(self.shown)
        return found

    def _said(self) -> str | None:
        """Return the URL in the file, None when it has none that can be used."""
        assert self._file is not None
        try:
            url = url_file.read(self._file)
        except InvalidSetting:
            return None
        return url if POSTGRES.match(url) else None

    def _curable(self, error: ForgeError, said: str | None) -> ForgeError:
        if not isinstance(error, StorageUnavailable | InvalidInput):
            return error
        text = str(error)
        if said is None:
            text += f" No URL of a PostgreSQL can be read from {self._file}."
        elif not isinstance(error, StorageUnusable | InvalidInput):
            return error
        return StorageUnavailable(text)
