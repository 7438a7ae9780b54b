# Both main targets start from nothing but Python 3.11+ and git: they make their own virtual environment.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
SEED ?= 1

.PHONY: install demo test check lock figures

install: $(BIN)/.installed

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

## Train an agent from pixels on this machine's CPU in a quarter of an hour; curve and video in runs/demo-SEED.
demo: install
	$(BIN)/pixelcontrol train cheetah_run --preset quick --seed $(SEED) --out runs/demo-$(SEED)

## All checks and tests.
test: check
	$(BIN)/pytest

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

## Rebuild every figure of the README from results/.
figures: install
	rm -f docs/figures/*
	$(BIN)/pixelcontrol plot results --out docs/figures

## Pin what the tests passed with.
lock: install
	(echo '# What the tests passed with. `make lock` writes this file anew.'; \
	  $(BIN)/pip freeze --exclude-editable | sed s/+cpu//) > constraints.txt
