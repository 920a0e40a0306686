"""Rules of the house that no linter knows: imports go one way, the stages stay apart, the core needs no TensorFlow."""

import ast
import pathlib
import re

import pytest

PROJECT = pathlib.Path(__file__).resolve().parents[2]
# What a folder may import from the project; what is not listed here may be imported by none of them.
ALLOWED = {
    "components": {"components"},
    "trainer": {"trainer", "components"},
    "pipeline": {"pipeline", "trainer", "components"},
    "kubeflow": {"kubeflow", "pipeline", "trainer", "components"},
}
OURS = {"components", "trainer", "pipeline", "kubeflow", "tests", "benchmarks"}
# The wings of a folder, the highest first: each may import those after it and what lies beside them, and no other.
WINGS = {
    "pipeline": ("schedule", "retrain", "run", "past", "report", "spans", "use"),
    "components": ("gate", "serving", "data"),
}
# Where everything comes together: the command line may import every wing.
ABOVE_THE_WINGS = {"pipeline/cli.py", "pipeline/__init__.py"}
# The only modules of the trainer that may import TensorFlow or TFX.
TENSORFLOW_ONLY = {
    "trainer/byol/run_fn.py",
    "trainer/devices.py",
    "trainer/input_pipeline.py",
    "trainer/probe/image_decoding.py",
    "trainer/probe/run_fn.py",
    "trainer/probe/serving.py",
}
# Argument lists that begin with a bare `python` on purpose: the image's PATH begins with its environment.
IN_THE_IMAGE = {
    "kubeflow/check_run.py",
    "kubeflow/compiler.py",
    "kubeflow/new_data.py",
    "tests/e2e/forked_command.py",
    "tests/e2e/byol_command.py",
}
BARE_PYTHON = re.compile(r"python[\d.]*")


def _files(folder: str) -> list[pathlib.Path]:
    return sorted((PROJECT / folder).rglob("*.py"))


def _imports(path: pathlib.Path, inside_functions: bool = True) -> set[str]:
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if inside_functions else ast.iter_child_nodes(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports_go_one_way(folder):
    wrong = {
        f"{path.relative_to(PROJECT)} imports {name}"
        for path in _files(folder)
        for name in _imports(path)
        if name.split(".")[0] in OURS - ALLOWED[folder]
    }
    assert not wrong


def _wing(folder: str, name: str) -> str | None:
    """The wing of `folder` that an imported name belongs to; None for what lies beside the wings."""
    first, second, *_ = [*name.split("."), "", ""]
    return second if first == folder and second in WINGS[folder] else None


@pytest.mark.parametrize("folder", WINGS)
def test_imports_go_down_the_wings(folder):
    wings, wrong = WINGS[folder], set()
    assert {path.name for path in (PROJECT / folder).iterdir() if (path / "__init__.py").exists()} == set(
        wings
    )
    for path in _files(folder):
        inside = path.relative_to(PROJECT / folder).parts
        if f"{folder}/{'/'.join(inside)}" in ABOVE_THE_WINGS:
            continue
        below = wings[wings.index(inside[0]) :] if len(inside) > 1 else ()
        found = {(_wing(folder, name), name) for name in _imports(path)}
        wrong |= {
            f"{path.relative_to(PROJECT)} imports {name}"
            for wing, name in found
            if wing not in (None, *below)
        }
    assert not wrong


def test_the_page_of_the_architecture_names_the_wings_in_their_order():
    page = (PROJECT / "docs" / "architecture.md").read_text()
    for folder, wings in WINGS.items():
        assert re.findall(rf"^\| `{folder}/(\w+)/` \|", page, re.MULTILINE) == list(wings)


def test_the_two_stages_do_not_import_each_other():
    wrong = [
        path
        for stage, other in (("byol", "probe"), ("probe", "byol"))
        for path in _files(f"trainer/{stage}")
        if any(name.startswith(f"trainer.{other}") for name in _imports(path))
    ]
    assert not wrong


def test_the_training_core_imports_no_tensorflow():
    core = [path for path in _files("trainer") if str(path.relative_to(PROJECT)) not in TENSORFLOW_ONLY]
    assert len(core) > 10
    wrong = [
        path
        for path in core
        if {name.split(".")[0] for name in _imports(path, inside_functions=False)}
        & {"tensorflow", "tfx", "tensorflow_transform"}
    ]
    assert not wrong


def test_row_definitions_and_codecs_import_neither_tensorflow_nor_beam():
    for name in ("data/features", "data/cifar10", "data/synthetic", "data/archive", "serving/serving_folder"):
        roots = {imported.split(".")[0] for imported in _imports(PROJECT / "components" / f"{name}.py")}
        assert not roots & {"tensorflow", "apache_beam", "tfx", "keras"}, name


def test_nothing_imports_tfxs_collected_names():
    """`tfx.v1` imports its extensions, and they Vertex AI's client: a third of what TFX's import takes (1.16)."""
    files = [path for folder in ALLOWED for path in _files(folder)]
    assert not [path for path in files if any(f"{name}.".startswith("tfx.v1.") for name in _imports(path))]


def _bare_interpreters(code: str) -> list[int]:
    """The lines of the argument lists that name an interpreter without its path."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.List | ast.Tuple) and len(node.elts) > 1
        for first, second in [(node.elts[0], node.elts[1])]
        if isinstance(first, ast.Constant) and BARE_PYTHON.fullmatch(str(first.value))
        if not isinstance(second, ast.Constant) or str(second.value).startswith("-")
    ]


def test_nothing_calls_an_interpreter_by_a_bare_name():
    """Which one it would be, and whether there is one, is the system's affair: Debian 13 has no `python`."""
    assert _bare_interpreters(
        "run(['python', '-c', x])\nrun(['python3', path])\nrun([sys.executable, '-c', x])"
    ) == [
        1,
        2,
    ]
    found = {
        f"{path.relative_to(PROJECT)}:{line}"
        for folder in sorted(OURS)
        for path in _files(folder)
        if str(path.relative_to(PROJECT)) not in IN_THE_IMAGE
        for line in _bare_interpreters(path.read_text())
    }
    assert found == set()
    makefile = (PROJECT / "Makefile").read_text()
    assert re.findall(r"^\t@?python.*", makefile, re.MULTILINE) == []


def test_every_page_that_is_named_exists():
    named = {
        (path.relative_to(PROJECT), page)
        for path in [
            *PROJECT.glob("*.md"),
            *PROJECT.glob("docs/**/*.md"),
            *(file for folder in ALLOWED for file in _files(folder)),
        ]
        for page in re.findall(r"docs/[\w/.-]+\.md", path.read_text())
    }
    assert len(named) > 10
    assert not {(path, page) for path, page in named if not (PROJECT / page).is_file()}
    links = {
        (path.relative_to(PROJECT), link)
        for path in [*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")]
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())
    }
    assert not {(path, link) for path, link in links if not (PROJECT / path.parent / link).exists()}
