"""Imports point upwards in ARCHITECTURE.md's list, which is complete; documents name what exists."""

import ast
import re
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pixelcontrol"
LIST = ROOT.joinpath("ARCHITECTURE.md").read_text(encoding="utf-8").partition("    pixelcontrol/\n")[2]
NAMES = re.findall(r"\b(\w+)(?:\.py|/)", LIST.partition("    tests/")[0])


def top_level(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Return the modules and folders of this package that a file imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "pixelcontrol":
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("pixelcontrol."):
            found.add(node.module.split(".")[1])
    return found


DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *(ROOT / "docs").glob("*.md")]
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if not path.name.startswith("__")]


def test_every_file_is_in_the_list() -> None:
    assert {path.stem for path in FILES} <= set(NAMES)


def test_imports_point_upwards() -> None:
    order = {name: NAMES.index(name) for name in {top_level(path) for path in FILES}}
    downwards = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in FILES
        for name in imports(path) & order.keys()
        if order[name] > order[top_level(path)]
    ]
    assert not downwards


def test_every_test_that_the_documents_name_exists() -> None:
    """In a document "..." and "*" stand for any letters; a name without a file may be in any."""
    tests = ROOT / "tests"
    known = {
        (path.relative_to(tests).as_posix(), name)
        for path in tests.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    named = {
        (file or "*", name.replace("...", "*"))
        for document in DOCUMENTS
        for file, name in re.findall(
            r"`(?:([\w/]+\.py)::)?(test_[\w.*]+?)`", document.read_text(encoding="utf-8")
        )
        if not name.endswith(".py")
    }
    assert len(named) > 50
    missing = [
        f"{file}::{name}"
        for file, name in sorted(named)
        if not any(fnmatch(there, file) and fnmatch(test, name) for there, test in known)
    ]
    assert not missing


def test_every_function_and_class_that_is_named_with_its_module_exists() -> None:
    """As in `networks.descend`; what is named like a module and a file, `train.csv`, is none."""
    modules = {path.stem: ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES}
    objects = {"config", "policy", "gymnasium"}  # of these names there are variables and libraries, too
    named = {
        (path.name, module, name)
        for path in [*DOCUMENTS, *FILES]
        for module, name in re.findall(
            r"`(?:pixelcontrol\.)?(?:\w+/)*(\w+)\.(\w+)[^`]*`", path.read_text(encoding="utf-8")
        )
        if module in modules.keys() - objects and name not in ("py", "csv", "json", "html", "css", "js")
    }
    assert len(named) > 20
    assert not [names for names in sorted(named) if not hasattr(import_module(modules[names[1]]), names[2])]
