# make lab    work through the course in JupyterLab
# make test   run all tests
# make course execute the notebooks with papermill into build/course/ (one of them: make course NB=04)
# make site   write the executed course as a web site into build/site/, to be read without Python or network
# make scale  run an experiment of notebook 08 in full (make scale PRESET=paper-mnist; with DRY=1 only say what it needs)
# make slides write lecture slides into build/slides/ (one notebook: make slides NB=04)
# make handout write notebooks to hand out and to mark with, and a teaching guide, into build/handout/
# make doctor say whether all that the course needs is here and whole, and what to do where it is not
# make clean  remove what these made
# The first call sets up .venv (see CPU, LOCKED, VENV below); later calls reuse it and need no network.

PYTHON ?= python3
# where the environment lies; where this folder cannot be written and has none, in the home folder
VENV ?= $(shell if test -w . -o -d .venv; then echo .venv; else echo "$$HOME/pu-course/venv"; fi)
BIN = "$(VENV)/bin"
# more arguments for JupyterLab (make lab ARGS=--no-browser) or pytest (make test ARGS=tests/test_risk.py)
ARGS ?=
# CPU=1: no CUDA, a seventh of the download on Linux. LOCKED=1: the very versions of requirements.lock, checked by their hashes.
INSTALL = $(PYTHON) -I notebooks/install.py --venv "$(VENV)" $(if $(filter-out 0,$(CPU)),--cpu) $(if $(filter-out 0,$(LOCKED)),--locked)

.PHONY: setup lab test test-lowest test-latest course doctor scale site slides handout notebooks timings seeds soak hooks policy coverage audit lock clean
.DEFAULT_GOAL := lab

setup:
	@$(INSTALL)

lab: setup
	@$(BIN)/python notebooks/start.py $(ARGS)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

# all tests, and those that take minutes each, with the lowest and the newest versions that pyproject.toml admits, in environments of their own:
# make test-lowest PYTHON=python3.10
test-lowest test-latest:
	@$(PYTHON) -I notebooks/install.py --venv .venv-$(@:test-%=%) --$(@:test-%=%)
	PULIB_LONG=1 .venv-$(@:test-%=%)/bin/python -m pytest -n 2 --dist loadfile $(ARGS)

course: setup
	$(BIN)/python notebooks/course.py $(NB)

doctor: setup
	@$(BIN)/python -m pulib.doctor $(ARGS)

FOLDER ?= build/scale
export FOLDER
scale: setup
	@$(BIN)/python -c 'import diffusers, peft, tensorboard, transformers' 2>/dev/null || $(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[scale]'
	$(BIN)/python notebooks/scale.py $(or $(PRESET),--list) --folder "$$FOLDER" $(if $(filter-out 0,$(DRY)),--dry) $(if $(filter-out 0,$(DOWNLOAD)),--download)

# the committed outputs are shown, nothing is executed
site: setup
	rm -rf build/site
	$(BIN)/python -m sphinx -q -E -c docs -d build/site-doctrees . build/site
	@echo "Open build/site/index.html in a browser."

slides: setup
	$(BIN)/python notebooks/slides.py $(NB)

handout: setup
	$(BIN)/python notebooks/handout.py

# for authors: measure the run times that the teaching guide gives where `make course` was not run
timings: course
	$(BIN)/python notebooks/handout.py --record

# for authors: every notebook with five other seeds and other priors (most of an hour); all tests N times in a row, with the memory of each (N=20: hours)
seeds: setup
	$(BIN)/python tests/seeds.py $(NB)

N ?= 20
soak: setup
	$(BIN)/python tests/soak.py $(N)

# for authors: look at each commit before it is made: outputs, sizes, text, code (policy: now)
hooks: setup
	$(BIN)/python -m pre_commit install

policy: setup
	$(BIN)/python notebooks/policy.py all

# for authors: which lines the tests do not reach, in their own processes and in those that they start; CONTRIBUTING says why these are left
coverage: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --cov=pulib $(ARGS)

# for authors: pin all packages by version and hash, for all platforms and Pythons; torch and torchvision as they are in this environment
lock: setup
	@$(BIN)/python -m uv --version >/dev/null 2>&1 || $(BIN)/python -m pip install --disable-pip-version-check --quiet uv
	(echo "setuptools>=77"; $(BIN)/python -m pip freeze | grep -E "^torch(vision)?==") | $(BIN)/python -m uv pip compile pyproject.toml - \
		--extra test --extra site --extra scale --universal --python-version 3.10 --generate-hashes --no-header --no-annotate --quiet --upgrade --output-file requirements.lock

# for authors: look up the versions in requirements.lock among the known weaknesses; fails too where that cannot be asked
audit: setup
	$(BIN)/python -m venv build/audit
	build/audit/bin/python -m pip install --disable-pip-version-check --quiet pip-audit
	build/audit/bin/pip-audit --strict --disable-pip --no-deps --requirement requirements.lock

# for authors: execute the notebooks and write their committed outputs
notebooks: setup
	$(BIN)/python notebooks/build.py $(NB)

clean:
	rm -rf build .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
	@echo "Kept $(VENV); 'rm -rf $(VENV)' removes it."
