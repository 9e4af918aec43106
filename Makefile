# make figures   everything: set up, train, evaluate, write figures/ (PROFILE=quick|evening|paper|smoke, SEEDS="0 1 2", MAPS="ribosome=/data/80S.mrc")
# make claims    every claim with what was found, pass or fail
# make switches  ten trainings of each noise level and loss on two data draws: hours
# make test      set up, unit tests, every notebook's checks
# make test-fast the quick half of the unit tests, for the inner loop
# make article   the article and the documentation as HTML
# make lab       JupyterLab on the notebooks
# make env       only the virtual environment
PROFILE ?= quick
SEEDS   ?= 0
MAPS    ?=
FILES   ?=
CLAIM_SEEDS := 0 1 2
CORES   ?= $(shell getconf _NPROCESSORS_ONLN)
PYTHON  ?= $(shell command -v python3.11 || command -v python3)

# Recipes read these from the environment, as they were given: make and the shell run nothing that stands in them.
override PROFILE := $(value PROFILE)
override SEEDS := $(value SEEDS)
override MAPS := $(value MAPS)
override FILES := $(value FILES)
export PROFILE SEEDS MAPS FILES

VENV  := .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.complete
# Python compiles what it imports, when it does: a third of the time of setting up is saved.
QUIET := --quiet --disable-pip-version-check --no-compile
TORCH := $(shell grep '^torch==' requirements.lock)

# On a machine with a GPU, one training at a time has it.
GPU_LIMIT := $(shell command -v nvidia-smi > /dev/null && echo "--resources gpu=1")
# One job a core: several small trainings side by side are faster than one with several threads, and one thread reproduces bit for bit.
export OMP_NUM_THREADS ?= 1
export PATH := $(CURDIR)/$(BIN):$(PATH)
# What Python compiles is kept in the environment: a test run starts some sixty processes that import the same packages.
unexport PYTHONDONTWRITEBYTECODE
# The environment's own Jupyter, not one configured elsewhere.
export JUPYTER_PREFER_ENV_PATH := 1

.PHONY: figures claims foreign switches test test-fast article lab env notebooks lint clean
.DELETE_ON_ERROR:

figures: env
	snakemake --cores $(CORES) --config "profile=$$PROFILE" "seeds=$$SEEDS" "maps=$$MAPS" --rerun-incomplete --quiet rules $(GPU_LIMIT)
	@[ "$$PROFILE" != quick ] || echo "Committed Figures 1 to 6 and Tables 1 to 4 are of PROFILE=evening: 2,000 steps of training in place of 120, 20 minutes of a core a run."
	@echo; echo "figures/$$PROFILE:"; ls "figures/$$PROFILE" | grep -v results | column -c 100

# Evaluates every claim on the committed results; README=1 writes the table into README.md, for maintainers.
claims: env
	python -m cryoetgan_core.paper.claims --profile "$$PROFILE" --seeds "$(CLAIM_SEEDS)" $(if $(README),--readme)

# Results on files that are not part of the project: FILES is their folder.
foreign: env
	snakemake foreign --cores $(CORES) --config "profile=$$PROFILE" "seeds=$$SEEDS" "files=$$FILES" --rerun-incomplete --quiet rules $(GPU_LIMIT)

# Ten trainings of each noise level and each switch of the loss, on two data draws: three hours of two cores.
switches: env
	snakemake switches --cores $(CORES) --config "profile=$$PROFILE" --rerun-incomplete --quiet rules $(GPU_LIMIT)

test: env
	pytest -n $(CORES)

# The article and the documentation, from committed results, figures and notebooks: article/_build/html/index.html
article: env
	sphinx-build -q -W --keep-going -b html article article/_build/html
	@echo "article/_build/html/index.html"

# The inner loop: no notebook, no training, no other program.
test-fast: env
	pytest -n $(CORES) -m "not slow" tests

# As root (in a container) Jupyter wants to be told that this is meant. LAB_ARGS="--ip 0.0.0.0 --no-browser" and the like are passed on.
lab: env
	@[ "$$(id -u)" -ne 0 ] || echo "JupyterLab as root: --allow-root is set."
	jupyter lab --notebook-dir=notebooks $$([ "$$(id -u)" -ne 0 ] || echo --allow-root) $(LAB_ARGS)

env: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@echo "Installing $(TORCH) and the packages of requirements.lock into $(VENV) (a few minutes) ..."
	$(BIN)/pip install $(QUIET) "$(TORCH)"
	@echo "... $$(grep -c == requirements.lock) packages more ..."
	$(BIN)/pip install $(QUIET) -r requirements.lock
	$(BIN)/pip install $(QUIET) --no-deps --no-build-isolation -e .
	touch $(STAMP)

# For maintainers: make the last quick results the committed ones, run every notebook once, as stored, and keep its outputs (what `make test` compares).
notebooks: env
	mkdir -p figures/quick/results && cp runs/quick/results/* figures/quick/results/
	CRYOETGAN_RUNS=$$(mktemp -d) jupyter nbconvert --to notebook --execute --inplace --log-level WARN --ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False notebooks/*.ipynb

lint: env
	ruff check . && ruff format --check .

clean:
	rm -rf runs .snakemake figures/smoke
