"""Where the database is, and as whom to connect: a URL, or the one in a file when the database refuses the first.

Whoever rotates a password changes the database and the file one after the other, and a mounted file follows
late. So neither is believed blindly: the URL by which a connection was made last holds.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from forge_jobs.errors import (
    ForgeError,
    InvalidInput,
    InvalidSetting,
    StorageDown,
    StorageUnavailable,
    StorageUnusable,
)
from forge_jobs.settings import url_file
from forge_jobs.settings.database_url import POSTGRES, redact

T = TypeVar("T")


class Address:
    """The URL of one database; `changed(url)` is called, without the password, when another URL answers."""

    def __init__(self, url: str, *, file: Path | None, changed: Callable[[str], None]) -> None:
        self.url = url  # with its password
        self.shown = redact(url)
        self._file = file
        self._changed = changed
        self._is_in_doubt = False  # the last try failed, or did not come to its end

    def doubt(self) -> None:
        """The file is asked before the next connection is made."""
        self._is_in_doubt = True

    async def reached(self, connect: Callable[[str], Awaitable[T]]) -> T:
        """Return what `connect` returns for the URL, or for the one in the file when the first raises a ForgeError.

        Raises StorageUnavailable where waiting may help, since another URL may be written into the file.
        """
        if self._file is None:
            return await connect(self.url)
        # Whoever waits for `connect` may be cancelled, so the doubt comes first.
        is_in_doubt, self._is_in_doubt = self._is_in_doubt, True
        first = (self._url_in_file() or self.url) if is_in_doubt else self.url
        try:
            connection = await connect(first)
        except ForgeError as refused:
            second = self.url if first != self.url else self._url_in_file()
            if second in (None, first):
                raise self._curable(refused, second) from refused.__cause__
            try:
                connection = await connect(second)
            except ForgeError as error:
                # The URL in the file is the one that people want.
                meant, other = (error, refused) if first == self.url else (refused, error)
                if isinstance(meant, StorageDown) and not isinstance(other, StorageDown):
                    # Others may use it where we cannot reach it.
                    raise StorageUnavailable(str(meant)) from meant.__cause__
                raise self._curable(meant, second) from meant.__cause__
            first = second
        self._is_in_doubt = False
        if first != self.url:
            self.url, self.shown = first, redact(first)
            self._changed(self.shown)
        return connection

    def _url_in_file(self) -> str | None:
        """Return the URL in the file, None when it has none that can be used."""
        assert self._file is not None
        try:
            url = url_file.read(self._file)
        except InvalidSetting:
            return None
        return url if POSTGRES.match(url) else None

    def _curable(self, error: ForgeError, url: str | None) -> ForgeError:
        if not isinstance(error, StorageUnavailable | InvalidInput):
            return error
        text = str(error)
        if url is None:
            text += f" No URL of a PostgreSQL can be read from {self._file}."
        elif not isinstance(error, StorageUnusable | InvalidInput):
            return error
        return StorageUnavailable(text)
