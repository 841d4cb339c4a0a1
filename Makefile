# make lab    work through the course in JupyterLab
# make test   run all tests
# make course execute the notebooks with papermill into build/course/ (one of them: make course NB=04)
# make site   write the executed course as a web site into build/site/, to be read without Python or network
# make scale  run an experiment of notebook 08 in full (make scale PRESET=paper-mnist; with DRY=1 only say what it needs)
# make slides write lecture slides into build/slides/ (one notebook: make slides NB=04)
# make handout write notebooks to hand out and to mark with, and a teaching guide, into build/handout/
# make clean  remove what these made
# The first call sets up .venv (some minutes, some GB of downloads for torch); later calls reuse it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.pulib-installed

.PHONY: setup lab test course scale site slides handout notebooks timings clean
.DEFAULT_GOAL := lab

setup: $(STAMP)

$(STAMP): pyproject.toml
	@echo "Setting up $(VENV): Python packages, torch among them. This happens once and takes some minutes."
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 14) else f"Python 3.10 to 3.13 is needed, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.12 setup")'
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --editable '.[test,site]'
	@touch $(STAMP)
	@echo "Set up."

lab: setup
	$(BIN)/jupyter lab notebooks/01_ddpm.ipynb

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile

course: setup
	$(BIN)/python notebooks/course.py $(NB)

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

# for authors: execute the notebooks and write their committed outputs
notebooks: setup
	$(BIN)/python notebooks/build.py $(NB)

clean:
	rm -rf build .pytest_cache .hypothesis .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
	@echo "Kept $(VENV); 'rm -rf $(VENV)' removes it."
