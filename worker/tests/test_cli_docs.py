"""docs/cli.md says what the command line itself says. `python worker/tests/test_cli_docs.py` writes it anew."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from forge_jobs.cli import app
from forge_jobs.cli.command import COMMON

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
MARK = "<!-- From here on written by worker/tests/test_cli_docs.py. -->\n"


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command below `command` with its path, in the order of the help."""
    for name, below in getattr(command, "commands", {}).items():
        if getattr(below, "commands", None):
            yield from commands(below, f"{path} {name}")
        else:
            yield f"{path} {name}", below


def usage(path: str, command: Any) -> str:
    arguments = [_shown(param) for param in command.params if param.param_type_name == "argument"]
    required = [
        _shown(param) for param in command.params if param.param_type_name == "option" and param.required
    ]
    return " ".join([path, *arguments, *required, "[OPTIONS]"])


def rows(params: list[Any]) -> list[str]:
    return [
        "| | |",
        "| --- | --- |",
        *(f"| `{_cell(_shown(param))}` | {_cell(_help(param))} |" for param in params),
    ]


def _shown(param: Any) -> str:
    if param.param_type_name == "argument":
        return param.metavar or param.name.upper()
    names = "/".join([*param.opts, *param.secondary_opts])
    return names if param.is_flag else f"{names} {param.metavar}"


def _help(param: Any) -> str:
    text = param.help or ""
    return text.replace("[default: ", "Default: ").replace("]", ".") if "[default: " in text else text


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def reference() -> str:
    """What the page has to say of all commands."""
    root = app
    shared = [param for param in root.params if param.name in COMMON]
    lines = ["## On every command", "", *rows(shared), ""]
    for path, command in commands(root, "forge-jobs"):
        own = [param for param in command.params if param.name not in COMMON and param.name != "help"]
        lines += [
            f"## {path}",
            "",
            " ".join(command.help.split()),
            "",
            f"`{_cell(usage(path, command))}`",
            "",
        ]
        lines += [*rows(own), ""] if own else []
    return "\n".join(lines).rstrip() + "\n"


def test_the_page_says_what_the_command_line_says() -> None:
    written = PAGE.read_text(encoding="utf-8").partition(MARK)[2].lstrip("\n")

    assert written == reference(), "docs/cli.md is stale; run: python worker/tests/test_cli_docs.py"


def test_every_option_says_what_it_is() -> None:
    for path, command in commands(app, "forge-jobs"):
        assert command.help, path
        for param in command.params:
            assert param.name == "help" or param.help, f"{path} {param.name}"


def test_every_command_has_the_common_options() -> None:
    for path, command in commands(app, "forge-jobs"):
        assert set(COMMON) <= {param.name for param in command.params}, path


if __name__ == "__main__":
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    PAGE.write_text(f"{head}{MARK}\n{reference()}", encoding="utf-8")
