"""What every committed notebook keeps to, and what nbval would not notice."""

import ast
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import nbformat
import papermill
import pytest
import yaml

from xai_utils.suite import parameters

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("0*.ipynb"))
SOLUTIONS = sorted(FOLDER.glob("solutions/0*.ipynb"))
PROFILES = sorted(FOLDER.glob("profiles/*/*.yaml"))

MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:home|root|tmp|work|Users)/")
EMBEDDED = re.compile(r"data:[\w/+.-]+;base64,[\w+/=]+")
NETWORK_PICTURE = re.compile(r"!\[[^\]]*\]\(\s*https?:|<(?:img|video|iframe)[^>]*\ssrc=[\"']?https?:", re.IGNORECASE)
SHOWS_RECORDS = re.compile(r"\.(?:finding|closing_table)\(")
NBVAL_COMMENT = re.compile(r"^\s*#+\s*(?:NBVAL_|PYTEST_VALIDATE)", re.MULTILINE)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tags(cell):
    return cell.metadata.get("tags", [])


def texts(notebook):
    """Every text that a reader sees: sources, and the outputs that are text."""
    for cell in notebook.cells:
        yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("text", "")
            for kind, content in output.get("data", {}).items():
                if kind.startswith("text/") or kind == "image/svg+xml":
                    yield EMBEDDED.sub("", content)


def parameter_values(notebook):
    """The assignments of the parameters cell: name = literal, or a, b = literal, literal."""
    values = {}
    for cell in code_cells(notebook):
        for line in ast.parse(cell.source).body if "parameters" in tags(cell) else []:
            target = line.targets[0] if isinstance(line, ast.Assign) else line.target
            several = isinstance(target, ast.Tuple)
            names = [name.id for name in (target.elts if several else [target])]
            literal = ast.literal_eval(line.value)
            values |= zip(names, literal if several else [literal], strict=True)
    return values


# each guard gives the faults it sees ----------------------------------------------------------------------


def valid(notebook):
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        return [str(error)]
    return []


def executed_in_order(notebook):
    counts = [cell.execution_count for cell in code_cells(notebook)]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"execution counts {counts}: run it from the top"]


def no_error_and_no_stderr(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


def parameters_first(notebook):
    tagged = [i for i, cell in enumerate(code_cells(notebook)) if "parameters" in tags(cell)]
    return [] if tagged == [0] else [f"cells tagged parameters: {tagged}; expected the first code cell alone"]


def record_last(notebook):
    cells = code_cells(notebook)
    return [] if cells and "run.record(" in cells[-1].source else ["the last code cell does not call run.record()"]


def at_most_700_kib(notebook):
    size = len(nbformat.writes(notebook).encode())
    return [f"{size / 1024:.0f} KiB"] if size > 700 * 1024 else []


def clean_metadata(notebook):
    meta = notebook.metadata
    faults = [name for name in ("widgets", "papermill") if name in meta]
    faults += [f"cell metadata: {n}" for c in notebook.cells for n in ("papermill", "execution") if n in c.metadata]
    faults += ["language_info.version"] if "version" in meta.get("language_info", {}) else []
    return faults + ([] if meta.get("kernelspec", {}).get("name") == "python3" else ["the kernel is not python3"])


def mostly_compared(notebook):
    cells = code_cells(notebook)
    ignored = [cell for cell in cells if "nbval-ignore-output" in tags(cell)]
    faults = [f"{len(ignored)} of {len(cells)} code cells ignored"] if 3 * len(ignored) > len(cells) else []
    faults += [c.source for c in cells if "nbval-skip" in tags(c) and "slider" not in tags(c)]
    faults += [c.source for c in cells if {"raises-exception", "nbval-raises-exception"} & set(tags(c))]
    return faults + [c.source for c in cells if NBVAL_COMMENT.search(c.source)]  # tags only: comments escape the cap


def findings_not_compared(notebook):
    shows = [
        cell for cell in code_cells(notebook) if SHOWS_RECORDS.search(cell.source)
    ]  # these change with the records
    return [cell.source for cell in shows if "nbval-ignore-output" not in tags(cell)]


def no_machine_path(notebook):
    return [text for text in texts(notebook) if MACHINE_PATH.search(text)]


def no_network_picture(notebook):
    return [cell.source for cell in notebook.cells if NETWORK_PICTURE.search(cell.source)]


def short_cells(notebook):
    cells = [cell.source for cell in code_cells(notebook) if "parameters" not in tags(cell)]  # these: one a line
    faults = [source for source in cells if not 1 <= len(source.strip().splitlines()) <= 12]
    count = len(notebook.cells)
    return faults + ([] if 30 <= count <= 70 else [f"{count} cells; expected 30 to 70"])


def plain_python(notebook):
    faults = []
    for cell in code_cells(notebook):
        try:
            nodes = list(ast.walk(ast.parse(cell.source)))
        except SyntaxError:  # a magic or a shell line
            faults.append(cell.source)
        else:
            faults += [f"class {node.name}" for node in nodes if isinstance(node, ast.ClassDef)]
    return faults


GUARDS = [
    valid,
    executed_in_order,
    no_error_and_no_stderr,
    parameters_first,
    record_last,
    at_most_700_kib,
    clean_metadata,
    mostly_compared,
    findings_not_compared,
    no_machine_path,
    no_network_picture,
    short_cells,
    plain_python,
]


# the notebooks ----------------------------------------------------------------------------------------------


def test_the_notebooks_are_found():
    assert bool(NOTEBOOKS) == bool(list(FOLDER.glob("*.ipynb")))


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_every_notebook_keeps_to(guard):
    faults = [f"{path.stem}: {fault}" for path in NOTEBOOKS for fault in guard(nbformat.read(path, as_version=4))]
    assert faults == []


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_solutions_keep_to(guard):
    assert {path.name for path in SOLUTIONS} <= {path.name for path in NOTEBOOKS}
    if guard in (parameters_first, record_last):  # they take no parameters and make no record
        return
    found = [(path, nbformat.read(path, as_version=4)) for path in SOLUTIONS]
    assert [
        f"{path.stem}: {f}" for path, n in found for f in guard(n) if not str(f).endswith("expected 30 to 70")
    ] == []


def defaults(stem):
    return parameter_values(nbformat.read(FOLDER / f"{stem}.ipynb", as_version=4))


def check_parameters(stem, values):
    parameters.validate(stem, values)  # names, types and ranges, as suite.start sees them


def test_defaults_are_the_quick_profile():
    for path in NOTEBOOKS:
        values = defaults(path.stem)
        check_parameters(path.stem, values)
        assert (values["profile"], values["seed"]) == ("quick", 0), path.stem
        quick = yaml.safe_load((FOLDER / f"profiles/quick/{path.stem}.yaml").read_text(encoding="utf-8")) or {}
        assert {name: values.get(name) for name in quick} == quick, path.stem


def test_every_profile_fits_its_notebook():
    for path in PROFILES:
        changes = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        assert changes.get("profile", path.parent.name) == path.parent.name, path
        check_parameters(path.stem, defaults(path.stem) | changes | {"profile": path.parent.name})


def test_every_notebook_has_every_profile():
    missing = [
        f"{profile}/{path.stem}.yaml"
        for path in NOTEBOOKS
        for profile in ("quick", "standard", "paper")
        if not (FOLDER / f"profiles/{profile}/{path.stem}.yaml").exists()
    ]
    assert not missing


def test_ruff_is_content_with_the_notebooks():
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "notebooks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# the guards themselves: a notebook without fault, and one fault each ---------------------------------------


def sound():
    v4 = nbformat.v4
    notebook = v4.new_notebook()
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for number in range(1, 16):
        table = v4.new_output("execute_result", {"text/plain": "a", "text/html": "<b>"}, execution_count=number)
        printed = v4.new_output("stream", name="stdout", text="done\n")
        code = v4.new_code_cell(f"x = {number}", execution_count=number, outputs=[table, printed])
        notebook.cells += [v4.new_markdown_cell("Text, see https://example.org/home/page."), code]
    cells = code_cells(notebook)
    cells[0].source = 'profile, arm = "quick", "main"\nseed: int = 0\nwidths = [1, 2]'
    cells[0].metadata.tags = ["parameters"]
    cells[3].metadata.tags = ["slider", "nbval-skip"]
    for cell in cells[5:10]:
        cell.metadata.tags = ["nbval-ignore-output"]
    cells[5].source = 'run.finding("P1.1")'
    cells[-1].source = "claims = run.record()"
    return notebook


HERE = "/".join(["", "tmp", "x"])


def output(cell, kind, **content):
    cell.outputs.append(nbformat.v4.new_output(kind, **content))


FAULTS = [
    (valid, lambda n, c: c[1].pop("outputs")),
    (executed_in_order, lambda n, c: c[3].update(execution_count=None)),
    (executed_in_order, lambda n, c: c[3].update(execution_count=9)),
    (no_error_and_no_stderr, lambda n, c: output(c[2], "error", ename="E", evalue="", traceback=[])),
    (no_error_and_no_stderr, lambda n, c: output(c[2], "stream", name="stderr", text="warning")),
    (parameters_first, lambda n, c: c[0].metadata.pop("tags")),
    (parameters_first, lambda n, c: c[4].metadata.update(tags=["parameters"])),
    (record_last, lambda n, c: c[-1].update(source="x = 1")),
    (at_most_700_kib, lambda n, c: output(c[2], "display_data", data={"image/png": "A" * 720_000})),
    (clean_metadata, lambda n, c: n.metadata.update(widgets={})),
    (clean_metadata, lambda n, c: n.metadata.update(papermill={})),
    (clean_metadata, lambda n, c: n.metadata.update(language_info={"name": "python", "version": "3.11"})),
    (clean_metadata, lambda n, c: n.metadata.kernelspec.update(name="mine")),
    (clean_metadata, lambda n, c: c[2].metadata.update(execution={})),
    (mostly_compared, lambda n, c: c[11].metadata.update(tags=["nbval-ignore-output"])),
    (mostly_compared, lambda n, c: c[11].metadata.update(tags=["nbval-skip"])),
    (mostly_compared, lambda n, c: c[11].metadata.update(tags=["raises-exception"])),
    (mostly_compared, lambda n, c: c[11].update(source="# NBVAL_IGNORE_OUTPUT\nx = 1")),
    (findings_not_compared, lambda n, c: c[2].update(source='run.finding("P1.1")')),
    (findings_not_compared, lambda n, c: c[2].update(source="run.closing_table()")),
    (no_machine_path, lambda n, c: n.cells[0].update(source="It stands in `/home/me/data`.")),
    (no_machine_path, lambda n, c: c[2].update(source='path = "/Users/me/data"')),
    (no_machine_path, lambda n, c: output(c[2], "stream", name="stdout", text="wrote " + HERE)),
    (no_machine_path, lambda n, c: output(c[2], "display_data", data={"text/html": f"<a href='file://{HERE}'>"})),
    (no_network_picture, lambda n, c: n.cells[0].update(source="![a cat](https://example.org/cat.png)")),
    (no_network_picture, lambda n, c: n.cells[0].update(source='<img width="9" src="http://example.org/cat.png">')),
    (short_cells, lambda n, c: c[2].update(source="x = 1\n" * 13)),
    (short_cells, lambda n, c: c[2].update(source=" ")),
    (short_cells, lambda n, c: n.cells.pop(4)),
    (short_cells, lambda n, c: n.cells.extend(n.cells[:2] * 21)),
    (plain_python, lambda n, c: c[2].update(source="class A:\n    pass")),
    (plain_python, lambda n, c: c[2].update(source="!pip install torch")),
    (plain_python, lambda n, c: c[2].update(source="%matplotlib inline")),
]


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.__name__)
def test_a_sound_notebook_passes(guard):
    assert guard(sound()) == []


@pytest.mark.parametrize(("guard", "spoil"), FAULTS)
def test_every_guard_sees_its_fault(guard, spoil):
    notebook = sound()
    spoil(notebook, code_cells(notebook))
    assert guard(notebook)


def test_embedded_pictures_are_not_read_as_paths():
    notebook = sound()
    html = f"<img src='data:image/png;base64,AAAA/{HERE}/AAAA='>"
    output(code_cells(notebook)[2], "display_data", data={"image/png": HERE, "text/html": html})
    assert no_machine_path(notebook) == []


def test_parameters_are_read_as_literals():
    assert parameter_values(sound()) == {"profile": "quick", "arm": "main", "seed": 0, "widths": [1, 2]}


# nbval, with the settings beside this file ---------------------------------------------------------------------


def test_nbval_compares_text_and_leaves_out_stderr_and_html(tmp_path):
    v4 = nbformat.v4
    sources = {  # code: what the committed notebook shows for it, and whether nbval shall be content
        "print('equal')": ("equal\n", True),
        "print('now')": ("then\n", False),
        "import sys; print('out'); print('noise', file=sys.stderr)": ("out\n", True),
        "from IPython.display import HTML; print('table'); HTML('<b>new</b>')": ("table\n", True),
        "import os; print('nbval-results-' in os.environ['XAI_RESULTS'], os.environ['XAI_PROGRESS'])": (
            "True 0\n",
            True,
        ),
        "print('more')": ("", False),
        "pass": ("less\n", False),
    }
    notebook = v4.new_notebook()
    notebook.metadata = nbformat.from_dict({"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    for number, (source, (text, _)) in enumerate(sources.items(), start=1):
        cell = v4.new_code_cell(source, execution_count=number)
        if text:
            output(cell, "stream", name="stdout", text=text)
        if "HTML" in source:
            data = {"text/html": "<b>old</b>", "text/plain": "<IPython.core.display.HTML object>"}
            output(cell, "execute_result", data=data, execution_count=number)
        notebook.cells.append(cell)
    nbformat.write(notebook, tmp_path / "toy.ipynb")
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "--nbval", "-p", "no:cacheprovider", f"--junitxml={report}"]
    command += [f"--rootdir={ROOT}", str(ROOT / "tests/notebooks"), str(tmp_path / "toy.ipynb"), "-k", "ipynb"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    cells = [case.find("failure") is None for case in ElementTree.parse(report).iter("testcase")]
    assert cells == [fine for _, fine in sources.values()], done.stdout
    assert done.returncode == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_papermill_shows_every_parameter_with_its_help(path, caplog):
    found = papermill.inspect_notebook(str(path))
    assert "Unable to parse" not in caplog.text
    entries = parameters.schema(path.stem).parameters
    assert found.keys() == entries.keys()
    assert all(found[name]["help"] for name in entries)
