"""The batch: what it plans and why, what it refuses, and that it resumes, keeps going and follows content."""

import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xai_utils import suite
from xai_utils.data import store
from xai_utils.suite import batch, passed, provenance

pytest.importorskip("snakemake", reason="the extra [batch] is not installed")
REPOSITORY = Path(__file__).parents[3]
LISTS = "data/splits/mnist.csv"
FAKE_RUN = """#!/usr/bin/env bash
echo "$@ $OMP_NUM_THREADS" >> calls.txt
folder=$XAI_RESULTS/$2/$1/$3/seed_$4
mkdir -p "$folder"
fail() {
  echo "Traceback"; echo "ValueError: seed $1 fails"; echo "[papermill] the end"
  touch "$folder/notebook.failed.ipynb"; exit 1
}
touch "$folder/notebook.running-$$.ipynb"
sleep "${SLOW:-0}"
while [ -e "${HOLD:-}" ]; do sleep 0.05; done
case $4 in 7) rm "$folder"/notebook.running*; fail 7 >&2 ;; 66) exit 0 ;; esac
sed "s/\\"SEED\\"/$4/g; s/ARM/$3/g" "$1.record" > "$folder/.new" && mv "$folder/.new" "$folder/record.json"
touch "$folder/notebook.running-$$.ipynb"  # papermill writes once more after the last cell
[ "$4" != 77 ] || fail 77 >&2
touch "$folder/notebook.ipynb"
rm -f "$folder"/notebook.running* "$folder/notebook.failed.ipynb"
"""
SCHEMA = """
profile: {type: str, default: quick, help: it}
seed: {type: int, default: 0, help: it}
epochs: {type: int, default: 3, help: it}
sizes: {type: int, default: [1, 2], list: true, help: each}
"""


def write_template(root, paper, **more):
    """What the stand-in for a run records: the notebook and the profile as they are now."""
    names = (f"notebooks/{paper}.ipynb", f"notebooks/profiles/quick/{paper}.yaml")
    made = {"commit": "0" * 40, "dirty": False, "started": "2026-01-01", "seconds": 1.0, "peak_memory_mib": 1.0}
    made |= {"python": "3.11", "packages": {}, "platform": "here", "hardware": {}, "threads": 1, "device": "cpu"}
    made |= {"data": [], "modules": {name: provenance.hash_file(root / name) for name in names}}
    parameters = {"profile": "quick", "arm": "ARM", "seed": "SEED", "epochs": 3, "sizes": [1, 2]}
    record = {"schema_version": 1, "paper": paper, "profile": "quick", "arm": "ARM", "seed": "SEED"}
    record |= {"parameters": parameters, "settings": {}, "metrics": {}, "claims": {}, "figures": [], "arrays": []}
    record |= {"provenance": made}
    for name, value in more.items():
        record[name] = record[name] | value if isinstance(value, dict) else value
    (root / f"{paper}.record").write_text(json.dumps(record))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A copy of the Snakefile beside two notebooks and a runner that takes notes and writes a record."""
    shutil.copy(REPOSITORY / "Snakefile", tmp_path)
    shutil.copytree(REPOSITORY / "batch", tmp_path / "batch")
    arms = {"01_first": ["main", "improved"], "02_second": None}
    tagged = {"tags": ["parameters"]}
    lines = ['profile, arm, seed = "quick", "main", 0\n', "epochs, sizes = 3, (1, 2)  # each"]
    cells = [{"cell_type": "code", "metadata": tagged, "source": lines, "outputs": [], "execution_count": 1}]
    cells += [{"cell_type": "code", "metadata": {}, "source": "x = 1", "outputs": [], "execution_count": 1}]
    for folder in ("notebooks/parameters", "notebooks/profiles/quick"):
        (tmp_path / folder).mkdir(parents=True)
    for paper, names in arms.items():
        (tmp_path / f"notebooks/{paper}.ipynb").write_text(json.dumps({"cells": cells}))
        (tmp_path / f"notebooks/profiles/quick/{paper}.yaml").write_text("profile: quick\n")
        schema = "arms:\n" + "".join(f"  {name}: {{}}\n" for name in names) if names else ""
        schema += SCHEMA
        (tmp_path / f"notebooks/parameters/{paper}.yaml").write_text(schema)
        write_template(tmp_path, paper)
    run = tmp_path / "notebooks/run"
    run.write_text(FAKE_RUN)
    run.chmod(0o755)
    monkeypatch.setenv("XAI_RESULTS", str(tmp_path / "results"))
    return tmp_path


def command(checkout, *arguments):
    environment = {k: v for k, v in os.environ.items() if k != "SNAKEMAKE_PROFILE"}
    environment |= {"OMP_NUM_THREADS": "1", "HOME": str(checkout), "XDG_CACHE_HOME": str(checkout / ".cache")}
    words = [sys.executable, "-m", "snakemake", "--workflow-profile", "batch/local", "--config", *arguments]
    return {"args": words, "cwd": checkout, "env": environment, "text": True}


def snakemake(checkout, *arguments):
    return subprocess.run(**command(checkout, *arguments), capture_output=True, timeout=300)


def planned(done):
    """The runs of which a dry run says that they are to be done."""
    assert done.returncode == 0, done.stderr
    lines = [line.split(": ") for line in done.stderr.splitlines() if line.startswith("batch: quick/")]
    assert done.stdout.count("rule run:") + done.stderr.count("rule run:") == len(lines)
    return {key: reason for _, key, reason, *_ in lines}


def calls(checkout):
    path = checkout / "calls.txt"
    made = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return sorted(made)


def reasons(root, arms="all", **asked):
    return {job.key: job.reason for job in batch.plan("quick", arms=arms, root=root, **asked)}


def run_all(root, **asked):
    """Every run that is asked for, by the stand-in."""
    for job in batch.plan("quick", arms="all", root=root, **asked):
        subprocess.run(["notebooks/run", job.paper, "quick", job.arm, str(job.seed)], cwd=root, check=True)


# what is planned ------------------------------------------------------------------------------------------------


def test_the_plan_is_papers_times_arms_times_seeds_in_order(checkout):
    keys = [job.key for job in batch.plan("quick", "02_second,01_first", "all", "1,0..1", checkout)]
    arms = ["02_second/main", "01_first/main", "01_first/improved"]
    assert keys == [f"quick/{arm}/seed_{seed}" for arm in arms for seed in (1, 0)]
    assert {job.reason for job in batch.plan("quick", root=checkout)} == {"no record"}
    assert len(batch.plan("quick", arms="main", root=checkout)) == 2
    firsts = [job.key for job in batch.plan("quick", root=checkout)]  # papers' arms differ: none named is the first
    assert firsts == ["quick/01_first/main/seed_0", "quick/02_second/main/seed_0"]


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"seeds": "2..0"}, r"SEEDS: '2..0' is no seed or range of seeds; write 0..2 or 0,3"),
        ({"seeds": "0..1 x"}, r"SEEDS: 'x' is no seed or range of seeds"),
        ({"seeds": "-1"}, r"SEEDS: '-1' is no seed"),
        ({"papers": "03_none"}, r"PAPERS: no notebook 03_none; there are: 01_first, 02_second"),
        ({"arms": "improved"}, r"ARMS: 02_second has no arm improved; it has: main"),
        ({"profile": "standard"}, r"PROFILE: 01_first has no profile 'standard'; it has: quick"),
    ],
)
def test_bad_requests_say_what_is_expected(checkout, asked, sentence):
    with pytest.raises(ValueError, match=sentence):
        batch.plan(**{"profile": "quick", "root": checkout} | asked)


MINE = """
steel: {papers: [01_first], parameters: {epochs: 5}}
roads: {papers: [02_second, 01_first], parameters: {epochs: 7, sizes: null}}
"""


def test_own_images_are_planned_by_name_and_done_once(checkout):
    (checkout / "mine.yaml").write_text(MINE.replace(", sizes: null", ""))
    jobs = batch.plan("quick", seeds="0..1", root=checkout, own="mine.yaml")
    steel, roads = "quick/01_first/main+own-steel", "quick/01_first/main+own-roads"
    second = "quick/02_second/main+own-roads"
    assert [job.key for job in jobs] == [f"{key}/seed_{seed}" for key in (steel, roads, second) for seed in (0, 1)]
    assert {job.reason for job in jobs} == {"no record"}
    asked = {"arms": "improved", "papers": "01_first", "root": checkout, "own": "mine.yaml"}
    assert [job.arm for job in batch.plan("quick", **asked)] == ["improved+own-steel", "improved+own-roads"]
    write_template(checkout, "01_first", parameters={"epochs": 5, "arm": "main"})
    record = (checkout / "01_first.record").read_text().replace('"SEED"', "0").replace("ARM", "main+own-steel")
    place = checkout / "results" / steel / "seed_0"
    place.mkdir(parents=True)
    (place / "record.json").write_text(record)
    (place / "notebook.ipynb").write_text("{}")
    due = {job.key: job.reason for job in batch.plan("quick", papers="01_first", root=checkout, own="mine.yaml")}
    assert due == {f"{steel}/seed_0": "", f"{roads}/seed_0": "no record"}
    (checkout / "mine.yaml").write_text(MINE.replace(", sizes: null", "").replace("epochs: 5", "epochs: 6"))
    due = {job.key: job.reason for job in batch.plan("quick", papers="01_first", root=checkout, own="mine.yaml")}
    assert due[f"{steel}/seed_0"] == "made with other parameters: epochs"


def test_a_parameter_that_own_images_choose_is_expected_of_their_record(checkout):
    path = checkout / "notebooks/parameters/01_first.yaml"
    path.write_text(
        path.read_text() + "dataset: {type: str, default: digits, help: it}\n"
        "folder: {type: str, default: '', chooses: {dataset: [folder]}, help: it}\n"
    )
    (checkout / "mine.yaml").write_text("steel: {papers: [01_first], parameters: {folder: /data/steel}}")
    made = {"arm": "main", "dataset": "folder", "folder": "steel"}
    write_template(checkout, "01_first", schema_version=2, parameters=made, overrides=["folder"])
    record = (checkout / "01_first.record").read_text().replace('"SEED"', "0").replace("ARM", "main+own-steel")
    place = checkout / "results/quick/01_first/main+own-steel/seed_0"
    place.mkdir(parents=True)
    (place / "record.json").write_text(record)
    (place / "notebook.ipynb").write_text("{}")
    assert [job.reason for job in batch.plan("quick", root=checkout, own="mine.yaml")] == [""]


def test_a_run_of_own_images_gets_its_name_its_plain_arm_and_its_parameters(checkout):
    (checkout / "mine.yaml").write_text("steel: {parameters: {folder: '/my images', epochs: 5}}")
    words = batch.own_words("mine.yaml", "improved+own-steel", checkout)
    assert words == {"name": "steel", "arm": "improved", "words": """-y '{"folder": "/my images", "epochs": 5}'"""}
    assert passed.passed(shlex.split(words["words"])) == {"folder": "/my images", "epochs": 5}
    assert batch.own_words("", "improved", checkout) == {"name": "", "arm": "improved", "words": ""}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "mine.yaml cannot be read"),
        ("steel: {papers: [03_none], parameters: {a: 1}}", "no notebook 03_none; there are: 01_first, 02_second"),
        ("my steel: {parameters: {a: 1}}", "'my steel' becomes a part of a folder's name"),
        ("steel: {papers: [01_first]}", "steel.parameters: Field required"),
        ("steel: {parameters: {a: 1}, masks: yes}", "steel.masks: Extra inputs"),
    ],
)
def test_a_file_of_own_images_that_is_wrong_says_how(checkout, text, sentence):
    if text is not None:
        (checkout / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        batch.plan("quick", root=checkout, own="mine.yaml")


def test_a_parameter_that_came_after_a_record_had_its_default_there(checkout):
    run_all(checkout)
    path = checkout / "notebooks/parameters/01_first.yaml"
    path.write_text(path.read_text() + "minutes: {type: float, default: 6.0, help: it}\n")
    assert set(reasons(checkout).values()) == {""}
    (checkout / "notebooks/profiles/quick/01_first.yaml").write_text("profile: quick\nminutes: 3.0\n")
    assert reasons(checkout, papers="01_first", arms="main")["quick/01_first/main/seed_0"].endswith("minutes")


def test_a_batch_of_own_images_runs_them_and_has_nothing_to_do_the_second_time(checkout):
    (checkout / "mine.yaml").write_text("steel: {papers: [01_first], parameters: {epochs: 5}}")
    write_template(checkout, "01_first", parameters={"epochs": 5, "arm": "main"})
    run = checkout / "notebooks/run"
    name = 'if [ -n "${XAI_NAME:-}" ]; then set -- "$1" "$2" "$3+own-$XAI_NAME" "$4" "${@:5}"; fi\n'
    run.write_text(FAKE_RUN.replace("\n", "\n" + name, 1))
    done = snakemake(checkout, "profile=quick", "own=mine.yaml")
    assert done.returncode == 0, done.stderr
    assert calls(checkout) == ['01_first quick main+own-steel 0 -y {"epochs": 5} 2']
    again = snakemake(checkout, "profile=quick", "own=mine.yaml")
    assert "1 of 1 records are current" in again.stderr
    assert calls(checkout) == []


def test_a_record_counts_while_what_made_it_is_the_same_and_whatever_its_time(checkout):
    run_all(checkout)
    assert set(reasons(checkout).values()) == {""}
    for path in checkout.rglob("*.*"):
        os.utime(path)
    assert set(reasons(checkout).values()) == {""}
    notebook = checkout / "notebooks/01_first.ipynb"
    notebook.write_text(notebook.read_text().replace("x = 1", "x  =  1  # a comment"))
    assert set(reasons(checkout).values()) == {""}
    notebook.write_text(notebook.read_text().replace("x  =  1", "x = 2"))
    changed = "changed since: notebooks/01_first.ipynb"
    assert reasons(checkout) == {
        "quick/01_first/main/seed_0": changed,
        "quick/01_first/improved/seed_0": changed,
        "quick/02_second/main/seed_0": "",
    }


def test_a_changed_profile_module_arm_or_data_set_is_named(checkout):
    known = {"xai_utils/training.py": "0" * 16}
    write_template(checkout, "02_second", provenance={"modules": known})
    run_all(checkout)
    (checkout / "notebooks/profiles/quick/01_first.yaml").write_text("profile: quick\nepochs: 5\n")
    assert reasons(checkout) == {
        "quick/01_first/main/seed_0": "made with other parameters: epochs",
        "quick/01_first/improved/seed_0": "made with other parameters: epochs",
        "quick/02_second/main/seed_0": "changed since: xai_utils/training.py",
    }
    (checkout / "notebooks/profiles/quick/01_first.yaml").write_text("profile: quick\nepochs: 3\n")
    assert reasons(checkout)["quick/01_first/main/seed_0"] == "changed since: notebooks/profiles/quick/01_first.yaml"

    (checkout / "notebooks/profiles/quick/01_first.yaml").write_text("profile: quick\n")
    schema = checkout / "notebooks/parameters/01_first.yaml"
    schema.write_text(schema.read_text().replace("improved: {}", "improved: {loss: other}"))
    old = {"name": "mnist", "sha256": "0" * 64, "variant": "prepared"}
    own = {"name": "cifar10", "sha256": "0" * 64, "variant": "own"}
    write_template(checkout, "02_second", provenance={"data": [old, own]})
    run_all(checkout, papers="02_second")
    assert reasons(checkout) == {
        "quick/01_first/main/seed_0": "",
        "quick/01_first/improved/seed_0": "made with other parameters: loss",
        "quick/02_second/main/seed_0": "changed since: data set mnist",
    }


def test_a_record_that_is_none_or_of_another_run_does_not_count(checkout):
    run_all(checkout, seeds="0..5")
    folder = checkout / "results/quick/01_first/main"
    (folder / "seed_0/record.json").write_text('{"schema_version": 1, "paper"')
    (folder / "seed_1/record.json").write_text('{"schema_version": 99}')
    shutil.copy(folder / "seed_3/record.json", folder / "seed_2")
    write_template(checkout, "01_first", parameters={"epochs": 9, "sizes": [1]})
    subprocess.run(["notebooks/run", "01_first", "quick", "main", "4"], cwd=checkout, check=True)
    found = list(reasons(checkout, papers="01_first", arms="main", seeds="0..5").values())
    assert found[0].startswith("unusable record: is not a whole record (")
    assert found[1] == "unusable record: has schema version 99, expected 1 or 2. Run the notebook again."
    assert found[2:] == [
        "the record of quick/01_first/main/seed_3 lies in its place",
        "",
        "made with other parameters: epochs, sizes",
        "",
    ]


def test_a_run_that_did_not_end_well_is_done_again_even_with_a_current_record(checkout):
    run_all(checkout, papers="01_first", seeds="0..3")
    folder = checkout / "results/quick/01_first/main"
    (folder / "seed_0/notebook.failed.ipynb").touch()
    (folder / "seed_1/notebook.running-node-17.ipynb").touch()
    (folder / "seed_3/notebook.running-node-18.ipynb").touch()
    os.utime(folder / "seed_3/notebook.running-node-18.ipynb", (0, 0))  # of before the record
    (folder / "seed_2/notebook.ipynb").unlink()
    assert list(reasons(checkout, papers="01_first", arms="main", seeds="0..3").values()) == [
        "its last run failed",
        "its last run was broken off",
        "no executed notebook beside the record",
        "",
    ]


def test_only_the_lowest_seed_needs_its_notebook_beside_the_record(checkout):
    made = checkout / "results/standard/01_first/main"
    (checkout / "notebooks/profiles/standard").mkdir()
    (checkout / "notebooks/profiles/standard/01_first.yaml").write_text("profile: standard\n")
    parameters = {"profile": "standard", "arm": "main", "epochs": 3, "sizes": [1, 2]}
    write_template(checkout, "01_first", profile="standard", arm="main", parameters=parameters)
    template = (checkout / "01_first.record").read_text()
    for seed in (1, 2, 10):
        (made / f"seed_{seed}").mkdir(parents=True)
        (made / f"seed_{seed}/record.json").write_text(template.replace('"SEED"', str(seed)))

    def why(seeds):
        return [job.reason for job in batch.plan("standard", "01_first", seeds=seeds, root=checkout)]

    assert why("1,2,10") == ["no executed notebook beside the record", "", ""]
    (made / "seed_1/notebook.ipynb").touch()
    assert why("1,2,10") == ["", "", ""]
    (made / "seed_1/record.json").unlink()  # then 2 is the lowest, and 10 is not
    assert why("2,10") == ["no executed notebook beside the record", ""]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("notebooks/01_first.ipynb", '{"cells": ['),
        ("notebooks/01_first.ipynb", '{"cells": 3}'),
        ("notebooks/profiles/quick/01_first.yaml", "epochs: [1"),
        ("notebooks/profiles/quick/01_first.yaml", "- epochs"),
        ("notebooks/profiles/quick/01_first.yaml", "epochs: many"),
        ("notebooks/profiles/quick/01_first.yaml", "epoch: 3"),
        ("notebooks/parameters/01_first.yaml", "arms: [1"),
        ("notebooks/parameters/01_first.yaml", "seed: {type: int, help: it}"),
    ],
)
def test_what_cannot_be_read_stops_its_own_paper_only(checkout, file, text):
    run_all(checkout)
    (checkout / file).write_text(text)
    found = {job.key: job.reason for job in batch.plan("quick", root=checkout)}
    assert found["quick/01_first/main/seed_0"].startswith("its notebook, profile or parameters cannot be read (")
    assert found["quick/02_second/main/seed_0"] == ""


def test_a_changed_default_or_an_arm_that_sets_a_parameter_is_named(checkout):
    run_all(checkout)
    schema = checkout / "notebooks/parameters/01_first.yaml"
    schema.write_text(schema.read_text().replace("improved: {}", "improved: {sizes: [3]}"))
    assert reasons(checkout, papers="01_first") == {
        "quick/01_first/main/seed_0": "",
        "quick/01_first/improved/seed_0": "made with other parameters: sizes",
    }
    schema.write_text(schema.read_text().replace("default: 3", "default: 34"))
    assert reasons(checkout, papers="01_first") == {
        "quick/01_first/main/seed_0": "made with other parameters: epochs",
        "quick/01_first/improved/seed_0": "made with other parameters: epochs, sizes",
    }


def test_a_changed_list_of_images_is_named(checkout):
    (checkout / "data/splits").mkdir(parents=True)
    lists = checkout / "data/splits/mnist.csv"
    lists.write_text("1,train")
    write_template(checkout, "02_second")
    record = json.loads((checkout / "02_second.record").read_text())
    record["provenance"]["modules"]["data/splits/mnist.csv"] = provenance.hash_file(lists)
    (checkout / "02_second.record").write_text(json.dumps(record))
    run_all(checkout, papers="02_second")
    assert reasons(checkout, papers="02_second") == {"quick/02_second/main/seed_0": ""}
    lists.write_text("1,test")
    assert reasons(checkout, papers="02_second") == {"quick/02_second/main/seed_0": f"changed since: {LISTS}"}


def test_planning_many_records_reads_what_they_share_once(checkout, monkeypatch):
    run_all(checkout, seeds="0..3")
    for seed in range(4, 60):
        place = checkout / f"results/quick/01_first/main/seed_{seed}"
        shutil.copytree(checkout / "results/quick/01_first/main/seed_0", place)
        record = json.loads((place / "record.json").read_text())
        (place / "record.json").write_text(
            json.dumps(record | {"seed": seed, "parameters": record["parameters"] | {"seed": seed}})
        )
    calls = {}

    def counted(module, name):
        known = getattr(module, name)

        def told(*arguments, **options):
            calls[name] = calls.get(name, 0) + 1
            return known(*arguments, **options)

        monkeypatch.setattr(module, name, told)

    counted(batch.parameters, "planned")
    counted(provenance, "hash_file")
    counted(batch, "lowest")
    found = {job.reason for job in batch.plan("quick", "01_first", "main", "0..59", checkout)}
    assert found == {""}
    assert calls["planned"] == 1
    assert calls["hash_file"] == 2  # the notebook and the profile
    store.registry()
    counted(store.yaml, "safe_load")
    assert all(store.registry() for _ in range(3))
    assert "safe_load" not in calls


def test_a_data_set_may_count_its_list_of_crops_in(checkout, monkeypatch):
    monkeypatch.setattr(store, "download_root", lambda: checkout / "data")
    for folder in ("splits", "contents"):
        (checkout / "data" / folder).mkdir(parents=True)
    for name in ("registry.yaml", "contents/crackforest.csv"):
        shutil.copy(REPOSITORY / "data" / name, checkout / "data" / name)
    lists = checkout / "data/splits/crackforest.csv"
    lists.write_text("1,train")
    (file,) = store.registry()["crackforest"].files
    digest = hashlib.sha256(lists.read_bytes()).hexdigest()
    both = store.sha256_of_lines({file.path: file.sha256, "splits/crackforest.csv": digest})
    for sha256 in (file.sha256, both):
        data = [{"name": "crackforest", "sha256": sha256, "variant": "prepared"}]
        write_template(checkout, "02_second", provenance={"data": data})
        run_all(checkout, papers="02_second")
        assert set(reasons(checkout, papers="02_second").values()) == {""}
    lists.write_text("1,test")
    assert set(reasons(checkout, papers="02_second").values()) == {"changed since: data set crackforest"}


def test_the_committed_standard_records_are_current():
    jobs = batch.plan("standard", arms="all", seeds="0..2")
    committed = REPOSITORY / "results"
    if suite.results_root() != committed:
        pytest.skip("XAI_RESULTS points elsewhere")
    assert [job.key for job in jobs if job.reason] == []
    assert {job.paper for job in jobs} == {path.stem for path in (REPOSITORY / "notebooks").glob("*.ipynb")}


# what Snakemake makes of it -------------------------------------------------------------------------------------


def test_it_keeps_going_says_what_failed_resumes_and_follows_content_not_time(checkout):
    plan = ["papers=01_first", "arms=main", "seeds=0,7,8"]
    expected = dict.fromkeys((f"quick/01_first/main/seed_{k}" for k in (0, 7, 8)), "no record")
    assert planned(snakemake(checkout, *plan, "-n")) == expected
    assert calls(checkout) == []
    failed = snakemake(checkout, *plan)
    assert failed.returncode != 0
    (log,) = (checkout / ".snakemake/runs").glob("*/quick.01_first.main.seed_7.log")
    told = failed.stderr[failed.stderr.index("batch: 2 of 3 runs done") :].splitlines()
    assert [line.strip() for line in told[1:5]] == [
        "FAILED   quick/01_first/main/seed_7: its last run failed",
        "ValueError: seed 7 fails",
        str(log.relative_to(checkout)),
        str(checkout / "results/quick/01_first/main/seed_7/notebook.failed.ipynb"),
    ]
    assert "[papermill] the end" in log.read_text()
    assert calls(checkout) == [f"01_first quick main {k} 2" for k in (0, 7, 8)]
    assert not (checkout / "results/quick/01_first/main/seed_7/record.json").exists()

    assert list(planned(snakemake(checkout, *plan, "-n"))) == ["quick/01_first/main/seed_7"]
    done = snakemake(checkout, "papers=01_first", "arms=main", "seeds=0,8")
    assert (done.returncode, calls(checkout)) == (0, [])
    assert "batch: 2 of 2 records are current" in done.stderr
    notebook = checkout / "notebooks/01_first.ipynb"
    notebook.write_text(notebook.read_text().replace("x = 1", "x = 2"))
    write_template(checkout, "01_first")
    done = snakemake(checkout, "papers=01_first", "arms=main", "seeds=0,8")
    assert (done.returncode, calls(checkout)) == (0, [f"01_first quick main {k} 2" for k in (0, 8)])
    assert len(list((checkout / ".snakemake/benchmarks").glob("*/*seed_8.tsv"))) == 2


def test_a_request_that_cannot_be_planned_ends_before_anything_is_run(checkout):
    done = snakemake(checkout, "arms=improved")
    assert done.returncode != 0
    assert "ARMS: 02_second has no arm improved; it has: main" in " ".join((done.stdout + done.stderr).split())
    assert not (checkout / "results").exists()


def test_a_run_without_a_current_record_fails_the_batch_whatever_its_exit_status(checkout):
    plan = ["papers=01_first", "arms=main", "seeds=1,66,77"]  # 66 records nothing, 77 fails after its record
    done = snakemake(checkout, *plan)
    assert done.returncode == 1
    told = [line.strip() for line in done.stderr[done.stderr.index("batch: 1 of 3 runs done") :].splitlines()]
    assert "FAILED   quick/01_first/main/seed_66: no record" in told
    assert "ended without a word: killed, out of time, out of memory?" in told
    assert "FAILED   quick/01_first/main/seed_77: its last run failed" in told
    assert list(planned(snakemake(checkout, *plan, "-n"))) == [f"quick/01_first/main/seed_{k}" for k in (66, 77)]
    alone = snakemake(checkout, "papers=01_first", "arms=main", "seeds=66")
    assert alone.returncode == 1  # its command ended with 0
    assert "some runs left no current record" in " ".join(alone.stderr.split())


def test_the_summary_gives_the_whole_of_the_last_error(checkout):
    job = batch.Job("quick", "01_first", "main", 3, "no record")
    log = checkout / f"{job.key.replace('/', '.')}.log"
    log.write_text(
        "KeyError: 'x'\n  in a cell\nFile one.py\nValueError: 2 wrong parameter(s):\n  epochs = 0: at least 1\n\n"
        "  latent_dims = 3: no such parameter\n\nthe notebook with its error: there\n  not this\n"
    )
    assert batch.summary([job], checkout).splitlines() == [
        "batch: 0 of 1 runs done",
        "FAILED   quick/01_first/main/seed_3: no record",
        "         ValueError: 2 wrong parameter(s):",
        "           epochs = 0: at least 1",
        "           latent_dims = 3: no such parameter",
        f"         {log}",
    ]
    log.write_text("Killed\n")
    assert batch.summary([job], checkout).splitlines()[2] == "         Killed"


def test_a_broken_paper_leaves_the_others_alone(checkout):
    (checkout / "notebooks/01_first.ipynb").write_text('{"cells": [')
    done = snakemake(checkout, "seeds=0,1")
    assert done.returncode == 1
    assert "batch: 2 of 4 runs done" in done.stderr
    assert set(reasons(checkout, papers="02_second", seeds="0..1").values()) == {""}
    assert done.stderr.count("FAILED   quick/01_first/main/seed_") == 2


def test_locks_that_a_killed_batch_left_do_not_count(checkout):
    locks = checkout / ".snakemake/locks"
    locks.mkdir(parents=True)
    for name in ("0.input.lock", "0.output.lock"):
        (locks / name).write_text(f"{checkout}/results\n")
    (checkout / ".snakemake/batch.lock").touch()
    assert snakemake(checkout, "papers=01_first").returncode == 0


def test_problems_of_other_records_are_told_and_do_not_fail_the_batch(checkout):
    other = checkout / "results/quick/02_second/main/seed_5"
    other.mkdir(parents=True)
    (other / "record.json").write_text('{"schema_version": 1, "pap')
    done = snakemake(checkout, "papers=01_first")
    assert done.returncode == 0, done.stderr
    assert "PROBLEM" in done.stdout + done.stderr


def test_a_failed_run_leaves_the_older_record_alone(checkout):
    path = checkout / "results/quick/01_first/main/seed_7/record.json"
    path.parent.mkdir(parents=True)
    path.write_text("an older one")
    assert snakemake(checkout, "papers=01_first", "arms=main", "seeds=7").returncode != 0
    assert path.read_text() == "an older one"


def test_one_batch_at_a_time(checkout):
    words = command(checkout, "papers=01_first", "seeds=0..1") | {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    words["env"]["HOLD"] = str(checkout / "hold")  # the second one finds it at work
    (checkout / "hold").touch()
    first = subprocess.Popen(**words)
    try:
        while not (checkout / "calls.txt").exists() and first.poll() is None:
            time.sleep(0.05)
        second = snakemake(checkout, "papers=02_second")
    finally:
        (checkout / "hold").unlink()
        first.communicate()
    assert first.returncode == 0
    assert second.returncode != 0
    assert "another batch is running in" in second.stderr + second.stdout
    assert {line.split()[0] for line in calls(checkout)} == {"01_first"}


def test_jobs_may_be_submitted_by_a_command_as_on_a_cluster(checkout):
    pytest.importorskip("snakemake_executor_plugin_cluster_generic", reason="the extra [batch] is not installed")
    submit = checkout / "submit"
    submit.write_text('#!/bin/sh\necho "$1" >> submitted.txt\nnohup sh "$1" > job.log 2>&1 &\necho $!\n')
    submit.chmod(0o755)
    options = ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(submit), "--jobs", "2"]
    options += ["--seconds-between-status-checks", "1"]
    words = command(checkout, "papers=01_first", "arms=all", "seeds=0")
    words["args"] = [*words["args"], *options]
    done = subprocess.run(**words, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert len((checkout / "submitted.txt").read_text().splitlines()) == 2
    assert calls(checkout) == ["01_first quick improved 0 2", "01_first quick main 0 2"]
    assert set(reasons(checkout, papers="01_first").values()) == {""}


def killed_again_and_again(checkout, kills, seeds, more_than):
    """Kill a batch at random moments and start it again: what tests/faults does."""
    rng, wanted = random.Random(0), [str(seed) for seed in seeds]
    plan = ["papers=01_first", "arms=main", "seeds=" + ",".join(wanted)]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    options = command(checkout, *plan) | silent
    options["env"]["SLOW"] = "0.2"

    def whole():  # recorded, with its notebook, and nothing of it left lying about
        folders = [path.parent for path in checkout.rglob("notebook.ipynb") if (path.parent / "record.json").exists()]
        return {folder.name[5:] for folder in folders if not any(folder.glob("notebook.running-*"))}

    lost = 0
    for _ in range(kills):
        kept = whole()
        process = subprocess.Popen(**options)
        while not (checkout / "calls.txt").exists() and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.8))  # between runs, within one, or while it is recorded
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not [*(checkout / ".snakemake/locks").glob("*")]
        begun = [line.split()[3] for line in calls(checkout)]
        assert not kept & {*begun}  # what is there is not done again
        assert len(begun) == len({*begun})
        made = whole() - kept
        assert made <= {*begun}
        assert len(begun) - len(made) <= 1  # one runs at a time
        lost += len(begun) - len(made)
    assert lost > more_than
    done = snakemake(checkout, *plan)
    assert done.returncode == 0, done.stderr
    assert whole() == {*wanted}
