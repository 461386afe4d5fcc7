"""Pages made from the records: front, verdict bench, claims, findings, glossary; guides, API and explorables."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path

import nbformat
import yaml
from bench import merged, subject
from words import HERE, Site, number_of, prose

from xai_utils.suite import claims, findings, report
from xai_utils.suite.findings import FindingError
from xai_utils.suite.rules import VERDICTS
from xai_utils.suite.shown import figure_path

GUIDES = ("running", "own_images", "own_model", "torchvision", "findings", "add_a_paper", "promises")
API = {"explain": "Explainers", "metrics": "Metrics and statistics", "models": "Models"}
WIDE = "---\nhtml_theme.sidebar_secondary.remove: true\n---"  # a page whose table or widget needs the whole width
Anchors = dict[str, dict[str, list[str]]]  # paper → claim → anchors on its page
e = html.escape


def opening_picture(site: Site, stem: str) -> tuple[Path, str]:
    """A paper's picture and its alternative text: the one that opens the notebook, else the first finding's figure."""
    root = site.source.root
    notebook = nbformat.read(root / "notebooks" / f"{stem}.ipynb", as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells[:2] if cell.cell_type == "markdown")
    if found := re.search(r"!\[([^\]]+)\]\(\.\./([^)]+\.png)\)", text):
        return root / found[2], found[1]
    for claim in site.source.reported.papers[stem].judged:
        entry = site.findings.claims.get(claim)
        if entry and entry.figure:
            return figure_path(entry, stem, site.source), " ".join(entry.figure.alt.split())
    raise FindingError(f"{stem}: no picture opens the notebook, and no finding has a figure")


def _told(site: Site, where: str, entry: findings.Finding | findings.Summary, stem: str) -> list[str]:
    """The sentences, or one line that says why there are none now."""
    if stale := findings.not_current(where, entry, stem, site.source):
        return [site.say("No current standard record ({why}).").format(why=stale[0])]
    return findings.tell(where, entry, stem, site.language, site.source)


def front(site: Site) -> None:
    """index.md: what this is, the most surprising finding, the papers, the explorables, and how to read on."""
    say, surprise = site.say, site.findings.surprise
    told = findings.joined(_told(site, surprise.paper, surprise, surprise.paper), site.language)
    cards, notebooks = [], []
    for stem, paper in site.source.reported.papers.items():
        if not (site.source.root / "notebooks" / f"{stem}.ipynb").is_file():
            continue
        notebooks.append(f"notebooks/{stem}")
        path, alt = opening_picture(site, stem)
        address = site.picture(path, f"front_{number_of(stem)}", 480)
        text = _told(site, stem, site.findings.papers[stem], stem)[0] if stem in site.findings.papers else ""
        title = say(paper.title)
        cards.append(
            f"::::{{grid-item-card}} {say('Paper {n}').format(n=number_of(stem))} · {prose(title)}\n"
            f":link: notebooks/{stem}\n:link-type: doc\n:link-alt: {prose(title)}\n:img-top: {address}\n"
            f":img-alt: {alt}\n\n{prose(text)}\n\n:::{{card-footer}}\n{_counts(site, stem)}\n:::\n::::"
        )
    live = [
        f":::{{grid-item-card}} {say(title)}\n:link: explorables/{name}\n:link-type: doc\n:link-alt: {say(title)}\n\n"
        f"{say(question)}\n:::"
        for name, (title, question) in EXPLORABLE_PAGES.items()
    ]
    intro = say(
        "Five Japanese papers on explaining image models, each rebuilt as one notebook: equation, code and picture side"
        " by side. Every claim of a paper has a verdict that a rule computed from measured numbers, and every verdict"
        " opens its evidence. Nothing needs to be installed to read, and nothing here asks another host."
    )
    site.write(
        "index.md",
        "\n\n".join(
            [
                f"# {say('Five papers on explaining image models, reproduced')}",
                intro,
                f":::{{admonition}} {say('One finding')}\n:class: surprise\n\n{prose(told)}\n\n"
                f"[{say('Judge it yourself on the verdict bench')}](bench.md)\n:::",
                f"## {say('Try the methods in the page')}",
                "::::{grid} 1 1 3 3\n:gutter: 3\n\n" + "\n".join(live) + "\n::::",
                f"## {say('The papers')}",
                ":::::{grid} 1 1 2 2\n:gutter: 3\n\n" + "\n".join(cards) + "\n:::::",
                f"## {say('Where to go')}",
                "\n".join(f"* [{say(label)}]({page}): {say(what)}" for page, label, what in WHERE),
                _toctree("", ["bench", "claims", "results"], say("Verdicts")),
                _toctree("", notebooks, say("Notebooks")),
                _toctree("", [f"explorables/{name}" for name in EXPLORABLE_PAGES], say("Try it")),
                _toctree("", ["glossary", "launch", *(f"docs/{name}" for name in _guides(site))], say("Guides")),
                _toctree("", [f"api/{name}" for name in API], say("Package")),
                _toctree("", ["solutions"], say("More")),
            ]
        ),
    )


EXPLORABLE_PAGES = {
    "digits": ("Draw a digit", "A network redraws your digit as each of ten labels. Which drawing fits best, and why?"),
    "signlab": (
        "MoRAM sign lab",
        "Move a rectangle until its map turns over. What did the network change its mind about?",
    ),
    "player": ("Insertion and deletion player", "A blank map wins a table of scores. Which choice made it the winner?"),
}
WHERE = (
    ("bench.md", "Verdict bench", "predict a verdict, then move its bound or leave a seed out, and see what flips it."),
    ("claims.md", "Claims", "every claim with the paper's number, ours, the verdict, and the cells that measure it."),
    ("results.md", "Findings", "what the standard runs found, claim by claim, with the figures."),
    ("glossary.md", "Glossary", "the papers' Japanese terms, in English, as symbols, and in the code."),
    ("launch.md", "Run it", "on your own computer, in a container, or in a hosted notebook."),
)  # fmt: skip


def _toctree(title: str, pages: list[str], caption: str) -> str:
    return ":::{toctree}\n:hidden:\n:caption: " + caption + "\n\n" + "\n".join(pages) + "\n:::"


def _counts(site: Site, stem: str) -> str:
    """How many of the paper's own claims have which verdict, as coloured words."""
    found = [verdict for (paper, claim, _), verdict in _verdicts(site).items() if paper == stem and claim[0] == "P"]
    return " ".join(f"{found.count(name)}&nbsp;{site.verdict(name)}" for name in VERDICTS if name in found)


def _verdicts(site: Site) -> dict[tuple[str, str, str], str]:
    table = _table(site)
    return {(r.paper, r.claim, r.arm): r.standard_verdict for r in table.itertuples() if r.standard_n}


def _table(site: Site):  # noqa: ANN202  a pandas table
    if not hasattr(site, "_suite_table"):
        site._suite_table = report.suite_table("standard", site.source.root / "results")
    return site._suite_table


def ledger(site: Site, anchors: Anchors) -> None:
    """claims.md: every claim with the paper's number, ours, the verdict and its evidence, and the cells behind it."""
    say, blocks = site.say, [WIDE, f"# {site.say('Claims')}", site.say(LEDGER)]
    for stem, paper in site.source.reported.papers.items():
        rows = [r for r in _table(site).itertuples() if r.paper == stem and r.claim and r.standard_n]
        if not rows:
            continue
        heads = [say(name) for name in LEDGER_HEADS]
        firsts = {row.claim: row for row in reversed(rows)}  # a claim's first row has its anchor and its statement
        lines = "".join(
            _ledger_row(site, paper, row, anchors.get(stem, {}), stem, row is firsts[row.claim]) for row in rows
        )
        blocks += [
            f"(paper-{number_of(stem)})=\n## {say('Paper {n}').format(n=number_of(stem))} · {prose(say(paper.title))}",
            f'<div class="wide-table" role="region" tabindex="0" aria-label="{e(say("Claims"))} {number_of(stem)}">'
            + '<table class="ledger"><thead><tr>'
            + "".join(f'<th scope="col">{e(head)}</th>' for head in heads)
            + f"</tr></thead><tbody>{lines}</tbody></table></div>",
        ]
    site.write("claims.md", "\n\n".join(blocks))


LEDGER_HEADS = ("claim", "what it says", "the paper", "standard runs", "verdict", "evidence")
LEDGER = (
    "Each verdict is computed by a rule from the records of the standard runs; nobody types one. Open the evidence to"
    " see which number stood against which bound; follow the links to the cells that measure it, or to the bench, where"
    " the bound moves."
)


def _ledger_row(
    site: Site,
    paper: claims.Paper,
    row,  # noqa: ANN001
    anchors: dict[str, list[str]],
    stem: str,
    first: bool,
) -> str:
    say, claim = site.say, paper.judged[row.claim]
    several = len(claim.rule.arms) > 1
    told = subject(site.source.records(stem, row.arm, row.claim))
    verdict = paper.judge(row.claim, site.source.metrics(stem, row.arm), told)
    notes = "".join(f"<li><code>{e(part)}</code></li>" for part in verdict.evidence.split("; "))
    links = [f'<a href="bench.html#bench-{row.claim}">{e(say("bench"))}</a>']
    for name in anchors.get(row.claim, []):
        what = say("finding in the notebook" if name.startswith("finding") else "measured here")
        links.append(f'<a href="notebooks/{stem}.html#{name}">{e(what)}</a>')
    words = e(say(claim.words or claim.statement))
    heads = [say(name) for name in LEDGER_HEADS[1:]]
    anchor = f' id="claim-{row.claim}"' if first else ""
    full = f'<span lang="en">{e(claim.statement)} ({e(claim.place)})</span>'
    folded = f"<details><summary>{e(say('in full'))}</summary>{full}</details>"
    cells = [
        f"{words}{folded if first else ''}",
        e(row.reported) or e(say("no number")),
        f"{e(_in_words(site, row.standard_value))}<br><small>{e(_in_words(site, row.standard_scale))}</small>",
        f"{site.verdict(verdict.verdict)}<br><small>{e(_in_words(site, verdict.reason))}</small>",
        f'<details><summary>{e(say("evidence"))}</summary><ul lang="en">{notes}</ul></details>{" · ".join(links)}',
    ]
    arm = f"<br><small>{e(row.arm)}</small>" if several else ""
    written = "".join(f'<td data-label="{e(head)}">{cell}</td>' for head, cell in zip(heads, cells))
    return f'<tr><th scope="row"{anchor}>{row.claim}{arm}</th>{written}</tr>'


_PHRASES = (  # of the tables that `report` makes
    (r"(\d+) of (\d+) conditions hold", "{0} of {1} conditions hold"),
    (r", (\d+) open", ", {0} open"),
    (r"(\d+) seeds?", "{0} seeds"),
    (r"open: ", "open: "),
    (r"too few cases", "too few cases"),
    (r"the network has not learned it", "the network has not learned it"),
    (r"not defined", "not defined"),
)


def _in_words(site: Site, text: str) -> str:
    """A cell of the table in the site's language; numbers and names stay as they are."""
    text = re.sub(r"(?<=\w)_(?=\w)", " ", text) if "seed" in text else text
    if site.language != "en":
        ceiling, because = "at most partly: ", site.say(text.removeprefix("at most partly: "))
        text = f"{site.say(ceiling)}{because}" if text.startswith(ceiling) else because
        for pattern, words in _PHRASES:
            text = re.sub(pattern, lambda found, words=words: site.say(words).format(*found.groups()), text)
    return text


def bench(site: Site, cases: list[dict], anchors: Anchors) -> None:
    """bench.md: the claims, closed; bench.js asks for a prediction, then shows the evidence and lets it be moved."""
    say = site.say
    blocks = [f"# {say('Verdict bench')}", say(BENCH), '<p id="bench-tally" class="bench-tally"></p>']
    for stem, paper in site.source.reported.papers.items():
        own = [case for case in cases if case["paper"] == number_of(stem)]
        if not own:
            continue
        blocks.append(f"## {say('Paper {n}').format(n=number_of(stem))} · {prose(say(paper.title))}")
        for claim in dict.fromkeys(case["id"] for case in own):
            blocks.append(
                _bench_claim(site, stem, [case for case in own if case["id"] == claim], anchors.get(stem, {}))
            )
    blocks += [f"## {say('An exercise')}", _exercise(site, cases)]
    site.write("bench.md", "\n\n".join(blocks))


def _exercise(site: Site, cases: list[dict]) -> str:
    """Which verdicts hang on one seed? The answer, folded, is computed from the records."""
    found = []
    for case in cases:
        stem = site.source.paper_of(case["id"])
        records = site.source.records(stem, case["arm"], case["id"])
        paper = site.source.reported.papers[stem]
        for place, left_out in enumerate(records if 1 < len(records) <= 5 else []):
            rest = merged(site.source, stem, case["arm"], case["id"], place)
            told = paper.judge(case["id"], rest, subject(records)).verdict
            if told != case["verdict"]:
                without = f"{site.say('without seed')} {left_out.seed}"
                found.append(f"* {case['key']}: {site.verdict(case['verdict'])}; {without}: {site.verdict(told)}")
    return (
        f":::{{exercise}}\n:label: one-seed\n:nonumber:\n\n{site.say(EXERCISE)}\n:::\n\n"
        f":::{{solution}} one-seed\n:class: dropdown\n\n{site.say(SOLUTION)}\n\n" + "\n".join(found) + "\n:::"
    )


EXERCISE = (
    "Find a claim whose verdict changes when a single seed is left out. What does that say about the number of seeds,"
    " and what about the claim? Hint: look for an interval that ends near its bound."
)
SOLUTION = (
    "These verdicts hang on one seed. With fewer seeds the interval over seeds grows, so most of them become open: the"
    " claim is not refuted, there is less evidence for it."
)

BENCH = (
    "Every claim below has a rule, written before the runs that it judges. Say first what you expect. Then you see each"
    " seed as a point, the interval as a bar, and the bound as a line that you can move; leave a seed out, and read"
    " what would flip the verdict. Your predictions stay in this browser."
)


def _bench_claim(site: Site, stem: str, own: list[dict], anchors: dict[str, list[str]]) -> str:
    say, first = site.say, own[0]
    parts = [
        f'<details class="bench-claim" id="bench-{first["id"]}">',
        f"<summary><b>{first['id']}</b> {e(first['words'])}</summary>",
    ]
    parts.append(f'<p lang="en">{e(first["statement"])}</p>')
    parts.append(f"<p>{e(say('the paper'))}: {e(first['reported'] or say('no number'))}</p>")
    for case in own:
        scale = f"{case['data']}, {len(case['seeds'])} {say('seeds')}"
        arm = f"{case['arm']}: " if case["arms"] > 1 else ""
        parts.append(f'<h4 class="bench-arm">{e(arm)}{e(scale)}</h4><div data-bench="{case["key"]}">')
        parts.append(f"<p>{e(say('committed'))}: {site.verdict(case['verdict'])}</p></div>")
    links = [f'<a href="claims.html#claim-{first["id"]}">{e(say("Claims"))}</a>']
    if first["id"] in site.findings.claims:
        links.append(f'<a href="results.html#result-{first["id"]}">{e(say("Findings"))}</a>')
    links += [
        f'<a href="notebooks/{stem}.html#{name}">{e(say("measured here"))}</a>'
        for name in anchors.get(first["id"], [])[:1]
    ]
    parts.append(f'<p class="bench-links">{" · ".join(links)}</p></details>')
    return "".join(parts)


def results(site: Site) -> None:
    """results.md: what the standard runs found, paper by paper and claim by claim, with the figures."""
    say = site.say
    blocks = [f"# {say('Findings')}", say(RESULTS)]
    for stem, paper in site.source.reported.papers.items():
        if stem not in site.findings.papers:
            continue
        blocks.append(f"## {say('Paper {n}').format(n=number_of(stem))} · {prose(say(paper.title))}")
        blocks.append(prose(findings.joined(_told(site, stem, site.findings.papers[stem], stem), site.language)))
        for claim, entry in paper.judged.items():
            if claim in site.findings.claims:
                blocks.append(_result(site, stem, paper, claim, entry))
    site.write("results.md", "\n\n".join(blocks))


RESULTS = (
    "What the standard runs say, filled in from the committed records. A number in brackets is an interval: the wider"
    " of the interval over seeds and the mean of the runs' own intervals over test images."
)


def _result(site: Site, stem: str, paper: claims.Paper, claim: str, entry: claims.Claim) -> str:
    found = site.findings.claims[claim]
    verdict = _verdicts(site).get((stem, claim, found.arm))
    text = prose(findings.joined(_told(site, claim, found, stem), site.language))
    parts = [
        f'<span id="result-{claim}"></span>',
        f"### {claim} · {prose(site.say(entry.words or entry.statement))}",
        f"{site.verdict(verdict)}\n" if verdict else "",
        text,
    ]
    if found.figure:
        address = site.picture(figure_path(found, stem, site.source), f"result_{claim}_{found.figure.name}", 900)
        alt = " ".join(found.figure.alt.split())
        parts.append(f":::{{image}} {address}\n:alt: {alt}\n:loading: lazy\n:::")
    return "\n\n".join(part for part in parts if part)


def glossary(site: Site) -> None:
    """glossary.md: Japanese, English, symbol, name in the code, and what it means."""
    say = site.say
    entries = yaml.safe_load((HERE / "glossary.yaml").read_text(encoding="utf-8"))
    heads = [say(name) for name in ("Japanese", "English", "symbol", "in the code", "meaning")]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for entry in entries:
        code = f"`{entry['code']}`" if entry["code"] else ""
        if entry["code"] and entry["code"].split(".")[0] in API:
            code = f"[`{entry['code']}`](api/{entry['code'].split('.')[0]}.md)"
        means = entry["means_ja" if site.language == "ja" else "means"]
        lines.append(f"| {entry['ja']} | {entry['en']} | {entry['symbol']} | {code} | {means} |")
    site.write("glossary.md", f"{WIDE}\n\n# {say('Glossary')}\n\n{say(GLOSSARY)}\n\n" + "\n".join(lines))


GLOSSARY = "The papers' own terms, what they are called in English, and where they stand in the code."


def _guides(site: Site) -> list[str]:
    """The pages of docs/: those of `GUIDES` in their order, then others."""
    there = sorted(path.stem for path in (site.source.root / "docs").glob("*.md"))
    return [*(name for name in GUIDES if name in there), *(name for name in there if name not in GUIDES)]


def guides(site: Site) -> None:
    """The pages of docs/ as they are; links out of it lead to the repository, where its address is known."""
    root = site.source.root
    repository = (root / "docs" / "repository.txt").read_text(encoding="utf-8").strip()
    for name in _guides(site):
        text = (root / "docs" / f"{name}.md").read_text(encoding="utf-8")
        for path in re.findall(r"\]\(\.\./([^)]+\.png)\)", text):
            (site.folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, site.folder / path)
        if repository:
            text = re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./([^)]+)\)", rf"[\1]({repository}/blob/main/\2)", text)
        else:
            text = re.sub(r"(?<!!)\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", text)
        site.write(f"docs/{name}.md", text)


def solutions(site: Site) -> None:
    """One page that lists the solutions."""
    folder = site.folder / "notebooks" / "solutions"
    names = sorted(f"notebooks/solutions/{path.stem}" for path in folder.glob("*.ipynb"))
    text = site.say("Worked and executed, one page a notebook. Try first: every exercise has a hint.")
    site.write(
        "solutions.md",
        f"# {site.say('Solutions')}\n\n{text}\n\n:::{{toctree}}\n:maxdepth: 1\n\n" + "\n".join(names) + "\n:::",
    )


def launch(site: Site) -> None:
    """launch.md: how to run the notebooks; hosted ones only where the repository's address is known."""
    repository = (site.source.root / "docs" / "repository.txt").read_text(encoding="utf-8").strip()
    text = (HERE / "pages" / "launch.md").read_text(encoding="utf-8")
    hosted = (HERE / "pages" / ("hosted.md" if repository else "hosted_without.md")).read_text(encoding="utf-8")
    site.write("launch.md", text + "\n" + hosted.replace("REPOSITORY", repository))


def api(site: Site) -> None:
    """A page for each part of the library, from the docstrings."""
    for part, title in API.items():
        blocks = [f"# {site.say(title)} (`xai_utils.{part}`)"]
        for path in sorted((site.source.root / "xai_utils" / part).glob("[a-z]*.py")):
            name = f"xai_utils.{part}.{path.stem}"
            blocks.append(f"## {path.stem}\n\n```{{eval-rst}}\n.. automodule:: {name}\n```")
        site.write(f"api/{part}.md", "\n\n".join(blocks))


def explorables(site: Site, folder: Path) -> None:
    """A page for each widget: a title, the question to answer first, and the fragment that make_data.py wrote."""
    up = "../" * (1 + (site.language == "ja"))
    for name, (title, question) in EXPLORABLE_PAGES.items():
        fragment = (folder / name / f"fragment.{site.language}.html").read_text(encoding="utf-8")
        site.write(
            f"explorables/{name}.md",
            f"{WIDE}\n\n# {site.say(title)}\n\n*{site.say(question)}*\n\n````{{raw}} html\n"
            f'<div class="explorable" data-assets="{up}_static/explorables/" data-runtime="{up}_static/onnxruntime/">\n'
            f"{fragment}\n</div>\n````",
        )
