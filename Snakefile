# Papers × arms × seeds → $XAI_RESULTS (default results/) / PROFILE / PAPER / ARM / seed_K / record.json
#   snakemake --cores 2 --keep-going --config profile=standard papers=01_id_cvae_morphing arms=main seeds=0..2
# papers, arms: separated by spaces or commas; default: every notebook, every arm of its notebooks/parameters/*.yaml.
# seeds: 0..2 or 0,3 or 0..1,5. A record that is there is kept, unless its notebook's code, profile or parameter
# schema has changed since; `python -m xai_utils.report` also marks records whose modules have changed (STALE).
import hashlib
import json
import os
import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError


workdir: workflow.basedir


HERE = Path(workflow.basedir)
RESULTS = os.environ.get("XAI_RESULTS") or "results"
PROFILE = str(config.get("profile") or "quick")


def words(name):
    given = config.get(name)
    return re.findall(r"[^\s,]+", "" if given is None else str(given))


def chosen_seeds():
    seeds = []
    for part in words("seeds") or ["0"]:
        found = re.fullmatch(r"(\d+)(?:\.\.(\d+))?", part, re.ASCII)
        if not found or int(found[2] or found[1]) < int(found[1]):
            raise WorkflowError(f"SEEDS: {part!r} is no seed or range of seeds; write 0..2 or 0,3")
        seeds += range(int(found[1]), int(found[2] or found[1]) + 1)
    return list(dict.fromkeys(seeds))


def chosen_papers():
    there = sorted(path.stem for path in (HERE / "notebooks").glob("0[1-5]_*.ipynb"))
    if unknown := [paper for paper in words("papers") if paper not in there]:
        raise WorkflowError(f"PAPERS: no notebook {', '.join(unknown)}; there are: {', '.join(there) or 'none'}")
    if not there:
        raise WorkflowError(f"no notebook such as 01_id_cvae_morphing.ipynb in {HERE / 'notebooks'}")
    return list(dict.fromkeys(words("papers"))) or there


def chosen_arms(paper):
    schema = yaml.safe_load((HERE / f"notebooks/parameters/{paper}.yaml").read_text(encoding="utf-8"))
    there = list(schema.get("arms") or ["main"])
    if unknown := [arm for arm in words("arms") if arm not in there]:
        raise WorkflowError(f"ARMS: {paper} has no arm {', '.join(unknown)}; it has: {', '.join(there)}")
    return list(dict.fromkeys(words("arms"))) or there


def sources(wildcards):
    names = f"{wildcards.paper}.ipynb", f"profiles/{wildcards.profile}/{wildcards.paper}.yaml"
    return [f"notebooks/{name}" for name in (*names, f"parameters/{wildcards.paper}.yaml")]


def content(wildcards):
    """Hash of the notebook's code and the two YAML files; it triggers a rerun in place of their time stamps."""
    texts = [(HERE / name).read_text(encoding="utf-8") for name in sources(wildcards)]
    cells = [cell["source"] for cell in json.loads(texts[0])["cells"] if cell["cell_type"] == "code"]
    return hashlib.sha256(json.dumps([cells, *texts[1:]]).encode()).hexdigest()[:16]


PAPERS = chosen_papers()
for paper in PAPERS:
    if not (HERE / f"notebooks/profiles/{PROFILE}/{paper}.yaml").is_file():
        there = sorted(path.parent.name for path in (HERE / "notebooks/profiles").glob(f"*/{paper}.yaml"))
        raise WorkflowError(f"PROFILE: {paper} has no profile {PROFILE!r}; it has: {', '.join(there) or 'none'}")


wildcard_constraints:
    paper=r"\d\d_\w+",
    profile=r"\w+",
    arm=r"[\w.-]+",
    seed=r"\d+",


rule report:
    input:
        [
            f"{RESULTS}/{PROFILE}/{paper}/{arm}/seed_{seed}/record.json"
            for paper in PAPERS
            for arm in chosen_arms(paper)
            for seed in chosen_seeds()
        ],
    params:
        python=sys.executable,
        profile=PROFILE,
    localrule: True
    shell:
        "{params.python:q} -m xai_utils.report --profile {params.profile:q}"


rule run:
    input:
        # ancient: a checkout gives every file a new time stamp; `content` below is what counts
        ancient(sources),
    output:
        RESULTS + "/{profile}/{paper}/{arm}/seed_{seed}/record.json",
    log:
        # what the runner says; the executed notebook (or notebook.failed.ipynb) lies beside the record
        ".snakemake/log/runs/{profile}.{paper}.{arm}.seed_{seed}.log",
    params:
        content=content,
    threads: 2  # of two cores: one training at a time
    retries: 1
    shell:
        "OMP_NUM_THREADS={threads} notebooks/run {wildcards.paper} {wildcards.profile} {wildcards.arm} {wildcards.seed}"
        " 2>&1 | tee {log:q}"


onerror:
    shell(f"{{sys.executable:q}} -m xai_utils.report --profile {PROFILE} || true")
