"""Where a result comes from: commit, code, data, versions, hardware."""

import ast
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from .paths import ROOT

PACKAGES = ("torch", "numpy", "matplotlib", "torch-ctf", "gemmi")
PACKAGE = Path(__file__).parents[1]
PHYSICS = ("physics.generator", "physics.estimate")  # modules that a run of the paper's generator never calls


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def provenance() -> dict[str, object]:
    """Commit, whether the tree was that commit, package versions, processor and its instructions, threads and GPU.

    Outside a git checkout the commit is "no git checkout"; the hash of the code (`code_hash`) names it there too.
    """
    # Figures, results and notebook outputs are what a run itself rewrites: they do not make it another version of the
    # code.
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!figures", ":!notebooks")
    commit = _git("rev-parse", "--short=12", "HEAD")
    return {
        "commit": commit or "no git checkout",
        "clean": bool(commit) and not changed,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),  # they decide the last digits
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def array_hash(*arrays: np.ndarray) -> str:
    """Twelve hexadecimal digits of shapes, types and values of arrays: the name of a data set or of weights."""
    digest = hashlib.sha256()
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.shape}{array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:12]


@lru_cache
def code_hash(*modules: str, without: tuple[str, ...] = ()) -> str:
    """Twelve hexadecimal digits of the code that `modules` (e.g. "training") run: their own and that of every module
    they import here.

    Modules `without`, and what only they import, are left out: what is imported and never run.

    Comments, docstrings, layout, and the file that a statement stands in do not count, so that neither a reworded
    sentence nor a moved function makes a result old. Nor does config.py, whose values have a hash of their own
    (`RunConfig.hash`).
    """
    statements = sorted(s for path in code_files(*modules, without=without) for s in _read(path.read_text())[1])
    return hashlib.sha256("\n".join(statements).encode()).hexdigest()[:12]


def code_files(*modules: str, without: tuple[str, ...] = ()) -> list[Path]:
    """The files of this package that `modules` import, directly or not, with their own, but for those `without`;
    sorted.
    """
    named = {name: _file(tuple(name.split("."))) for name in (*modules, *without)}
    missing = [name for name, path in named.items() if path is None]
    if missing:
        raise ValueError(
            f"no module {', '.join(missing)} in {PACKAGE}; expected names such as 'training' or 'particles.simulated'"
        )
    left_out = {named[name] for name in without}
    found, waiting = set(), [named[name] for name in modules]
    while waiting:
        path = waiting.pop()
        if path not in found | left_out:
            found.add(path)
            waiting += sorted(_imports(path))
    return sorted(found)


def _file(parts: tuple[str, ...]) -> Path | None:
    """The file of a module of this package."""
    base = PACKAGE.joinpath(*parts)
    return next((p for p in (base.parent / f"{base.name}.py", base / "__init__.py") if p.is_file()), None)


def _imports(path: Path) -> set[Path]:
    """Files of this package that a file imports; of a package only the modules named, unless something of its
    `__init__` is.
    """
    here, files = path.relative_to(PACKAGE).parent.parts, set()
    for level, module, names in _read(path.read_text())[0]:
        parts = (*here[: len(here) - level + 1], *(module.split(".") if module else ()))
        files |= {_file((*parts, name)) or _file(parts) for name in names}
    return files - {None, PACKAGE / "config.py"}


@lru_cache(None)  # by a file's text: many modules import the same ones, and parsing takes a second a hundred files
def _read(text: str) -> tuple[list[tuple[int, str | None, list[str]]], list[str]]:
    """Level, module and names of each relative import of a file; and its statements but its imports, without comments
    and docstrings.
    """
    tree = ast.parse(text)
    nodes = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level > 0]
    imported = [(n.level, n.module, [alias.name for alias in n.names]) for n in nodes]
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:]
    return imported, [_dump(node) for node in tree.body if not isinstance(node, (ast.Import, ast.ImportFrom))]


def _dump(node: object) -> str:
    """A syntax tree as text, the same in every version of Python: `ast.dump` also writes fields that are empty, of
    which newer versions have more.
    """
    if isinstance(node, ast.AST):
        fields = [(name, getattr(node, name, None)) for name in node._fields]
        return f"{type(node).__name__}({', '.join(f'{k}={_dump(v)}' for k, v in fields if v not in (None, []))})"
    return f"[{', '.join(map(_dump, node))}]" if isinstance(node, list) else repr(node)
