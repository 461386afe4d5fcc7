"""Build the reading site: `make site`. English in build/site/html, Japanese in build/site/html/ja.

    python site/build.py [--out build/site] [--languages en ja]

What a browser loads comes from npm, once, by exact version and integrity hash (site/package-lock.json).
"""

from __future__ import annotations

import argparse
import filecmp
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(HERE), str(ROOT)]

import bench  # noqa: E402
import pages  # noqa: E402
import papers  # noqa: E402
from words import Site  # noqa: E402

from xai_utils.suite.findings import Source  # noqa: E402

RUNTIME = ("ort.wasm.min.js", "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def npm(folder: Path) -> Path:
    """Install what package-lock.json names into `folder`, unless it is there already; its node_modules.

    Raises:
        SystemExit: there is no npm, or it could not fetch the packages.
    """
    lock = HERE / "package-lock.json"
    installed = folder / "package-lock.json"
    modules = folder / "node_modules"
    if modules.is_dir() and installed.is_file() and filecmp.cmp(lock, installed, shallow=False):
        return modules
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    shutil.copyfile(HERE / "package.json", folder / "package.json")
    names = "MathJax, axe-core and onnxruntime-web, once, from the npm registry"
    if not shutil.which("npm"):
        raise SystemExit(f"make site needs npm (it comes with Node.js) to fetch {names}. Install it, then: make site")
    shutil.copyfile(lock, folder / ".lock")
    shutil.copyfile(lock, installed)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True
    )
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        why = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SystemExit(f"make site needs {names}, and npm could not fetch them ({why}). Once online: make site")
    shutil.copyfile(folder / ".lock", installed)  # npm may write addresses into its own copy
    return modules


def explorables(folder: Path) -> Path:
    """What make_data.py writes, made anew only where something that it reads has changed; its folder."""
    read = [HERE / "make_data.py", *(HERE / "explorables").rglob("*"), *(ROOT / "results" / "weights").glob("*")]
    for part in ("data", "explain", "metrics", "models", "papers"):
        read += (ROOT / "xai_utils" / part).rglob("*.py")
    files = sorted(path for path in read if path.is_file())
    seen = hashlib.sha256()
    for path in files:
        seen.update(f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    stamp = folder / "made_from"
    if not stamp.is_file() or stamp.read_text(encoding="utf-8") != seen.hexdigest():
        shutil.rmtree(folder, ignore_errors=True)
        alone = os.environ | {"OMP_NUM_THREADS": "1"}  # threads sum in another order
        subprocess.run([sys.executable, str(HERE / "make_data.py"), str(folder)], check=True, cwd=ROOT, env=alone)
        stamp.write_text(seen.hexdigest(), encoding="utf-8")
    return folder


def assets(modules: Path, folder: Path) -> None:
    """Put what pages load besides Sphinx's own files into `folder`: formulas, the runtime, the explorables."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "mathjax").mkdir(parents=True)
    shutil.copyfile(modules / "mathjax" / "es5" / "tex-svg.js", folder / "mathjax" / "tex-svg.js")
    shutil.copytree(explorables(folder.parent / "explorables"), folder / "explorables")
    if any(folder.glob("explorables/*/*.onnx")):
        (folder / "onnxruntime").mkdir()
        for name in RUNTIME:
            shutil.copyfile(modules / "onnxruntime-web" / "dist" / name, folder / "onnxruntime" / name)


def sources(language: str, folder: Path, static: Path, records: Source) -> None:
    """Write the source pages of one language."""
    shutil.rmtree(folder, ignore_errors=True)
    site = Site(language, folder, records)
    anchors = {
        stem: papers.write(site, stem)
        for stem in records.reported.papers
        if (ROOT / "notebooks" / f"{stem}.ipynb").is_file()
    }
    pages.bench(site, bench.cases(site), anchors)
    pages.ledger(site, anchors)
    pages.explorables(site, static / "explorables")
    for page in (pages.front, pages.results, pages.glossary, pages.guides, pages.solutions, pages.launch, pages.api):
        page(site)
    own = folder / "_own"
    own.mkdir()
    (own / "bench_data.js").write_text(bench.script(site), encoding="utf-8")


def sphinx(language: str, out: Path, target: Path, static: Path) -> subprocess.Popen[bytes]:
    """Start Sphinx for one language; warnings are errors."""
    source, doctrees, locale = (out / f"{name}-{language}" for name in ("source", "doctrees", "locale"))
    for left in (doctrees, locale):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(HERE / "locale", locale)  # Sphinx compiles it beside the original
    environment = os.environ | {"SITE_LANGUAGE": language, "SITE_ASSETS": str(static), "SITE_LOCALE": str(locale)}
    command = ["-m", "sphinx", "-b", "html", "-W", "--keep-going", "-q", "-c", str(HERE), "-d", str(doctrees)]
    return subprocess.Popen([sys.executable, *command, str(source), str(target)], env=environment)


_SHARED = re.compile(r"""(["'(])((?:\.\./)*)(_images/[^"'?)]+|_static/mathjax/tex-svg\.js)""")
_MENDED = (  # the theme's pages: no script of 1.5 MB for ten icons (site.css has them); names for what has none
    (r"<(?:script|link)[^>]*fontawesome\.js[^>]*>(?:</script>)?", ""),
    (r'(<button class="btn search-button-field[^>]*?) title="[^"]*" aria-label="[^"]*"', r"\1"),
    (r'<summary>(?=<span class="toctree-toggle")', r'<summary aria-label="{below}">'),
)


def finish(html: Path) -> None:
    """Take away what no page needs, mend what the theme leaves; both languages share equal pictures."""
    for left in (*html.rglob("jupyter_execute"), *html.rglob(".doctrees"), *html.rglob("_sources")):
        shutil.rmtree(left)
    for left in (*html.rglob("*.map"), *html.rglob(".buildinfo")):
        left.unlink()
    double: set[Path] = set()

    def up(found: re.Match[str]) -> str:
        one, two = html / found[3], html / "ja" / found[3]
        if not one.is_file() or not two.is_file() or not filecmp.cmp(one, two, shallow=False):
            return found[0]
        double.add(two)
        return f"{found[1]}../{found[2]}{found[3]}"

    for page in html.rglob("*.html"):
        japanese = (html / "ja") in page.parents
        text = page.read_text(encoding="utf-8")
        for pattern, instead in _MENDED:
            text = re.sub(pattern, instead.format(below="下位のページ" if japanese else "pages below"), text)
        page.write_text(_SHARED.sub(up, text) if japanese else text, encoding="utf-8")
    for path in (*double, *html.rglob("fontawesome.js*"), *html.rglob("*.po")):
        path.unlink()


def main() -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python site/build.py", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "site")
    parser.add_argument("--languages", nargs="+", choices=("en", "ja"), default=("en", "ja"))
    given = parser.parse_args()
    out, began = given.out.resolve(), time.monotonic()
    static, html = out / "static", out / "html"
    assets(npm(out / "npm"), static)
    records, running = Source(), []
    shutil.rmtree(html, ignore_errors=True)
    for language in given.languages:
        source = out / f"source-{language}"
        sources(language, source, static, records)
        own = out / f"static-{language}"
        shutil.rmtree(own, ignore_errors=True)
        shutil.move(source / "_own", own)
        for name in ("mathjax", *(["explorables", "onnxruntime"] if language == "en" else [])):
            if (static / name).is_dir():
                shutil.copytree(static / name, own / name, ignore=shutil.ignore_patterns("*.html", "made_from"))
        target = html / "ja" if language == "ja" else html
        running.append(sphinx(language, out, target, own))
    for title in papers.untranslated(records) if "ja" in given.languages else ():
        print(f"no Japanese in site/locale for the heading: {title}")
    failed = [process.wait() for process in running]
    finish(html)
    size = sum(path.stat().st_size for path in html.rglob("*") if path.is_file())
    print(f"{html}: {size / 1e6:.1f} MB in {time.monotonic() - began:.0f} s")
    return max(failed)


if __name__ == "__main__":
    sys.exit(main())
