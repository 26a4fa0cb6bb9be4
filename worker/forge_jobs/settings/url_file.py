"""The file that holds a database URL and nothing else, such as a key of a mounted Secret.

It may say another one at any time: a password was rotated, or the database has moved.
"""

from pathlib import Path

from forge_jobs.errors import InvalidSetting
from forge_jobs.settings.database_file import AsSaid
from forge_jobs.settings.database_url import ALLOWED, is_database_url

VARIABLE = "FORGE_DATABASE_URL_FILE"


def read(path: Path) -> str:
    """Return the URL in the file, less the white space around it.

    Raises InvalidSetting, which never repeats what is in the file: it cannot be read, or holds something else.
    """
    try:
        url = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):  # ValueError: not UTF-8, or no path at all
        raise InvalidSetting(VARIABLE, str(path), "a file that can be read") from None
    if not is_database_url(url):
        raise InvalidSetting(f"The URL in {path}", AsSaid("something else"), ALLOWED)
    return url
