# Papers × arms × seeds → $XAI_RESULTS (default results/) / PROFILE / PAPER / ARM / seed_K / record.json
#   snakemake --cores 2 --keep-going --config profile=standard papers=01_id_cvae_morphing arms=main seeds=0..2
# papers: notebooks, separated by spaces or commas; default: all. arms: of notebooks/parameters/*.yaml; default: the
# first of each paper; "all".
# own: a YAML file of own images (docs/own_images.md); their runs alone.
# seeds: 0..2 or 0,3 or 0..1,5. What is planned, and why, is said by xai_utils/suite/batch.py: a run is done if its record is
# missing, unusable or not current by content. batch/README.md has the page for clusters.
import shutil
import sys
import time
from pathlib import Path

from filelock import FileLock, Timeout
from snakemake.exceptions import WorkflowError

from xai_utils.suite import batch
from xai_utils.suite.report import main as print_tables


workdir: workflow.basedir


HERE = Path(workflow.basedir)
PROFILE = str(config.get("profile") or "quick")
MINUTES = {"quick": 20, "standard": 120}  # before a cluster may stop a job; the paper profile: a day
BATCH = time.strftime("%Y%m%dT%H%M%S")  # another one each time: what is done already is asked of the records alone
NAME = "{batch}/{profile}.{paper}.{arm}.seed_{seed}"
DONE, LOG = f".snakemake/done/{NAME}", f".snakemake/runs/{NAME}.log"  # DONE stands for a record that this batch made


def given(name):
    return "" if config.get(name) is None else str(config[name])


def planned():
    """The runs to do. A job on a cluster reads this file too; it is told its run and needs no plan."""
    if not workflow.is_main_process:
        return []
    if not workflow.dryrun:
        global _lock  # the operating system frees it however this process ends; Snakemake's own lock outlives a kill
        Path(".snakemake").mkdir(exist_ok=True)
        _lock = FileLock(".snakemake/batch.lock", timeout=0)
        try:
            _lock.acquire()
        except Timeout:
            raise WorkflowError(f"another batch is running in {HERE}: wait for its end, or use another checkout")
        shutil.rmtree(".snakemake/done", ignore_errors=True)
    try:
        jobs = asked_for()
    except ValueError as error:
        raise WorkflowError(str(error))
    due = [job for job in jobs if job.reason]
    print(f"batch: {len(jobs) - len(due)} of {len(jobs)} records are current", file=sys.stderr)
    for job in due:
        print(f"batch: {job.key}: {job.reason}", file=sys.stderr)
    if not due and not workflow.dryrun:
        print_tables(["--profile", PROFILE])
    return due


def asked_for():
    return batch.plan(PROFILE, given("papers"), given("arms"), given("seeds") or "0", HERE, given("own"))


def say():
    """Print the papers against the records, and what became of the planned runs; whether each has a record now.

    Records that cannot be used, of whichever run, are named, and are no failure of this batch.
    """
    print_tables(["--profile", PROFILE])
    now = [batch.reasoned(job, HERE) for job in PLANNED]
    prefix = workflow.storage_settings.default_storage_prefix or ""  # there lie the logs of a cluster without shared disk
    print(batch.summary(now, Path(prefix, *Path(LOG).parts[:2], BATCH)), file=sys.stderr)
    return not any(job.reason for job in now)


PLANNED = planned()


wildcard_constraints:
    batch=r"\w+",
    paper=r"\d\d_[\w-]+",
    profile=r"[\w-]+",
    arm=r"[\w.+-]+",
    seed=r"\d+",


rule all:
    input:
        [DONE.format(batch=BATCH, **job._asdict()) for job in PLANNED],
    localrule: True


rule run:
    output:
        touch(DONE),
    log:
        # what the runner says; the executed notebook (or notebook.failed.ipynb) lies beside the record
        LOG,
    benchmark:
        f".snakemake/benchmarks/{NAME}.tsv"
    params:
        own=lambda wildcards: batch.own_words(given("own"), wildcards.arm, HERE),
    threads: 2  # of two cores: one training at a time
    resources:
        mem_mb=8000,
        runtime=lambda wildcards: MINUTES.get(wildcards.profile, 24 * 60),
    shell:
        # XAI_WAIT: a killed batch may have left a run behind that still writes into this folder
        "XAI_WAIT=$((60 * {resources.runtime})) OMP_NUM_THREADS={threads} XAI_NAME={params.own[name]} notebooks/run {wildcards.paper}"
        " {wildcards.profile} {params.own[arm]} {wildcards.seed} {params.own[words]} > {log:q} 2>&1"


onsuccess:
    if not say():
        raise WorkflowError("the commands ended well, but some runs left no current record; see above")


onerror:
    say()
