# A fresh machine needs only Python >= 3.10: `make demo`, `make test`.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test slow mutants lint types clean

install: .venv/installed

# torch and torchvision come together, so that their builds match
.venv/installed: setup.cfg setup.py
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "vistasks needs Python 3.10 or newer; set PYTHON=...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet --editable '.[dev,imagenet]'
	touch $@

demo: install
	$(BIN)/vistasks demo

# two processes with a thread each: PyTorch's own threads would wait for each other; a file stays in one process, so that its fixtures are made once
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile $(TESTS)

slow: install
	$(BIN)/python -m pytest -m slow

# make mutants FILE=vistasks/ops/boxes.py: one-line changes that the tests of that file do not see
mutants: install
	OMP_NUM_THREADS=1 $(BIN)/python tools/mutants.py $(FILE)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf .venv runs out
