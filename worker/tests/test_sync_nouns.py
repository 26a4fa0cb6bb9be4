"""The nouns of `forge.sync` are those of a forge, without `await`. `python worker/tests/test_sync_nouns.py` writes them anew."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[1] / "forge_jobs"
NOUNS = {
    "crons": "Crons",
    "flows": "Flows",
    "groups": "Groups",
    "interventions": "Interventions",
    "jobs": "Jobs",
    "kinds": "Kinds",
    "limits": "Limits",
    "operations": "Operations",
    "owners": "Owners",
    "queues": "Queues",
    "statistics": "Statistics",
    "tenants": "Tenants",
    "workers": "Workers",
}

HEAD = '''"""`forge.sync.{noun}`: what `forge.{noun}` does, without an event loop. Written by worker/tests/test_sync_nouns.py."""

{imports}
from forge_jobs.client.{noun} import {name}
from forge_jobs.sync.noun import SyncNoun


class Sync{name}(SyncNoun[{name}]):
    """{doc}"""
'''


def written(noun: str) -> str:
    """Return what the file of this noun has to say."""
    tree = ast.parse((LIBRARY / "client" / f"{noun}.py").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    own = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and node.name != NOUNS[noun]]
    for assigned in (node.targets[0] for node in tree.body if isinstance(node, ast.Assign)):
        own += [name.id for name in ast.walk(assigned) if isinstance(name, ast.Name)]
    [of_noun] = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == NOUNS[noun]]
    lines = [ast.unparse(node) for node in imports]
    if own:
        lines.append(f"from forge_jobs.client.{noun} import {', '.join(own)}")
    doc = (ast.get_docstring(of_noun) or "").replace("`forge.", "`forge.sync.")
    text = HEAD.format(noun=noun, name=NOUNS[noun], imports="\n".join(lines), doc=_indented(doc))
    for node in of_noun.body:
        if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
            text += _method(node, ast.unparse(node.returns) if node.returns else "None")
        elif isinstance(node, ast.FunctionDef) and (returns := _awaited_of(node)) is not None:
            text += _method(node, returns)
    return _in_house_style(text)


def _awaited_of(node: ast.FunctionDef) -> str | None:
    """Return what the call of a method returns that is to be awaited and is no `async def`; its work is the method `_name`."""
    match node.returns:
        case ast.Subscript(ast.Name("Coroutine"), ast.Tuple([_, _, returns])):
            return ast.unparse(returns)
    return None


def _method(node: ast.AsyncFunctionDef | ast.FunctionDef, returns: str) -> str:
    given = node.args
    passed = [argument.arg for argument in (*given.posonlyargs, *given.args)][1:]
    passed += [f"*{given.vararg.arg}"] if given.vararg else []
    passed += [f"{argument.arg}={argument.arg}" for argument in given.kwonlyargs]
    passed += [f"**{given.kwarg.arg}"] if given.kwarg else []
    doc = _indented((ast.get_docstring(node) or "").replace("; to be awaited as `enqueue`", ""), "        ")
    name = node.name if isinstance(node, ast.AsyncFunctionDef) else f"_{node.name}"
    on = ", connection" if "connection" in (argument.arg for argument in given.kwonlyargs) else ""
    call = f"self._do(self._noun.{name}({', '.join(passed)}){on})"
    return (
        f"\n    def {node.name}({ast.unparse(given)}) -> {returns}:\n"
        f'        """{doc}"""\n        {"" if returns == "None" else "return "}{call}\n'
    )


def _indented(doc: str, by: str = "    ") -> str:
    lines = [f"{by}{line}" if line else "" for line in doc.splitlines()]
    return "\n".join(lines).lstrip() + (f"\n{by}" if len(lines) > 1 else "")


def _in_house_style(text: str) -> str:
    for arguments in (["check", "--fix", "--select", "F401,I", "--quiet"], ["format"]):
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "ruff",
                *arguments,
                "--stdin-filename",
                str(LIBRARY / "sync" / "x.py"),
                "-",
            ],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        )
        text = done.stdout
    return text


@pytest.mark.parametrize("noun", NOUNS)
def test_a_noun_of_sync_is_that_of_a_forge_without_await(noun: str) -> None:
    assert (LIBRARY / "sync" / f"{noun}.py").read_text(encoding="utf-8") == written(noun)


if __name__ == "__main__":
    for noun in NOUNS:
        (LIBRARY / "sync" / f"{noun}.py").write_text(written(noun), encoding="utf-8")
