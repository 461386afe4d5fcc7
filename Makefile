# Every target works from a fresh clone: it makes the environment first, once.
#   make reproduce   set up, run all notebooks at the quick profile, print the papers' numbers beside ours
#   make test        set up, lint, unit and reference tests, every notebook by nbval, a user's short runs: tests/README.md
#   make test-real   every notebook on its real data, a few steps; needs $XAI_DATA
#   make test-own    longer runs on own images, and the example of docs/torchvision.md
#   make test-faults kills and faults of disk and clock, docs/promises.md
#   make lab         open the notebooks in JupyterLab
#   make batch PROFILE=standard PAPERS=01_id_cvae_morphing SEEDS=0..2 ARMS=all         many runs, resumable; batch/README.md
#   make batch OWN=mine.yaml     the same on your own images: docs/own_images.md
#   make execute     run the notebooks in place, after a change
#   make equivalent  after a change that moves no number: show it, so that the records stay current; results/README.md
#   make site        the reading site, English and Japanese, in build/site/html: site/README.md
#   make test-site   every page of it in Chromium, both languages, at three sizes
#   make test-versions the oldest and the newest packages that pyproject.toml allows, and the wheel; docs/promises.md
#   make test-portable (other CPU kernels) · mutants · tables · weights · bench · setup · clean

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
$(if $(strip $(VENV)),,$(error VENV is empty: name the folder of an environment, or leave it out))
BIN = $(VENV)/bin
STAMP = $(VENV)/.suite-installed
SITE_STAMP = $(VENV)/.site-installed
BENCH_STAMP = $(VENV)/.bench-installed
PAPERS ?= $(basename $(notdir $(wildcard notebooks/0[1-9]_*.ipynb)))
PROFILE ?= quick
SEEDS ?= 0
ARMS ?=
BATCH ?=
OWN ?=
MUTANTS ?=
ONLY ?=
STANDARD ?=
JOBS ?= 2

# two processes with one thread each: tests/conftest.py sets the threads
PYTEST = $(BIN)/python -m pytest -p no:cacheprovider -n $(JOBS)
# in the order of collection: the longest file comes first
NBVAL = $(PYTEST) --dist loadscope --no-loadscope-reorder --nbval --nbval-cell-timeout=600

.PHONY: setup reproduce test lint unit notebooks test-real test-own test-faults test-site execute test-portable test-versions mutants batch equivalent tables weights bench site lab clean
.DELETE_ON_ERROR:

setup: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 was found: install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"{sys.executable} is Python {v[0]}.{v[1]}; this suite needs 3.11, 3.12 or 3.13: make PYTHON=python3.12 …")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# JOBS notebooks at a time, one thread each; what a run says is shown when it has ended
reproduce: setup
	@logs=$$(mktemp -d); trap 'rm -rf "$$logs"' EXIT; \
	printf '%s\n' $(PAPERS) | OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} xargs -P $(JOBS) -I {} sh -c \
	  'log="$$0/{}.log"; echo "── {} (quick profile, seed 0)" >"$$log"; notebooks/run {} quick >>"$$log" 2>&1 || echo {} >>"$$0/failed"; cat "$$log"' "$$logs"; \
	failed=$$(sort "$$logs/failed" 2>/dev/null | sed 's/^/ /' | tr -d '\n'); \
	$(BIN)/python -m xai_utils.suite.report --profile quick --check; status=$$?; \
	test -z "$$failed" || { echo "failed:$$failed (the error stands above, and in $${XAI_RESULTS:-results}/quick/<paper>/<arm>/seed_0/notebook.failed.ipynb)"; exit 1; }; \
	exit $$status

test: lint unit notebooks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

unit: setup
	$(PYTEST) --dist loadfile --durations=10 -m "not slow and not real_data" tests/unit tests/reference tests/real

notebooks: setup
	$(NBVAL) --durations=10 -m "not slow" tests/notebooks notebooks

# what `make test` leaves out: own images of papers 2 to 5, with masks and without, and the example of docs/torchvision.md
test-own: setup
	$(PYTEST) --dist load --durations=0 -m slow tests/notebooks

# the real image sets as they are read, and every notebook on them, a few steps: about six minutes on two cores
test-real: setup
	$(PYTEST) --dist load --durations=0 -m "slow or real_data" tests/real tests/unit/data tests/unit/models

# kills at seeded moments, faults of disk and clock: at most ten minutes on two cores
test-faults: setup
	$(PYTEST) --dist worksteal --durations=10 tests/faults

# run the notebooks in place at their defaults, and their solutions, as they are committed
execute: setup
	@for paper in $(PAPERS); do folder=$$(mktemp -d); \
	  XAI_RESULTS=$$folder XAI_PROGRESS=0 $(BIN)/papermill notebooks/$$paper.ipynb notebooks/$$paper.ipynb -k python3 --no-progress-bar \
	    && notebooks/clean notebooks/$$paper.ipynb; status=$$?; rm -rf $$folder; test $$status = 0 || exit 1; \
	  solved=notebooks/solutions/$$paper.ipynb; test ! -f $$solved || { XAI_PROGRESS=0 $(BIN)/papermill $$solved $$solved -k python3 \
	    --no-progress-bar --cwd notebooks/solutions && notebooks/clean $$solved; } || exit 1; done

# measured numbers differ in the fifth digit between processors; what nbval compares must not
test-portable: setup
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(NBVAL) tests/notebooks notebooks -k ipynb

# three environments of their own, a gigabyte each and more with a torch for GPUs; oldest.txt is for Python 3.11 alone
WHICH ?= oldest newest wheel
test-versions:
	@for which in $(WHICH); do tests/versions/run $$which $(PYTHON) || exit 1; done

mutants: setup
	$(BIN)/python tests/mutants.py $(MUTANTS)

batch: setup
	$(BIN)/snakemake --workflow-profile batch/local $(BATCH) --config profile="$(PROFILE)" papers="$(PAPERS)" seeds="$(SEEDS)" arms="$(ARMS)" own="$(OWN)"

# STANDARD=1 adds a run of each paper at its records' own size; ONLY="01_id_cvae_morphing …" takes some papers
equivalent: setup
	$(BIN)/python -m xai_utils.suite.equivalence --papers "$(ONLY)" --jobs $(JOBS) $(if $(STANDARD),--whole)

# results/tables/*.csv, the generated blocks of README.md and results/README.md, and results/verdict_changes.md
tables: setup
	$(BIN)/python -m xai_utils.suite.report --results results export
	$(BIN)/python -m xai_utils.suite.readme --results results
	-$(BIN)/python -m xai_utils.suite.changes  # needs the git history

# trained networks that standard runs of seed 0 left in $XAI_RESULTS, into results/weights
weights: setup
	$(BIN)/python -m xai_utils.suite weights

# other libraries to measure against, installed beside the rest, once
$(BENCH_STAMP): $(STAMP) benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/requirements.txt
	@touch $@

bench: $(BENCH_STAMP)
	@for script in benchmarks/bench_*.py; do echo "── $$script"; $(BIN)/python $$script || exit 1; done

# Sphinx and what it needs are installed beside the rest, once, so that `make setup` does not grow
$(SITE_STAMP): $(STAMP) site/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r site/requirements.txt
	@touch $@

site: $(SITE_STAMP)
	$(BIN)/python site/build.py

# one process: two Chromiums on two cores take longer
test-site: site
	$(BIN)/python -m pytest -p no:cacheprovider --durations=10 tests/site

lab: setup
	$(BIN)/jupyter lab notebooks

clean:
	rm -rf .venv build *.egg-info results/quick .snakemake
