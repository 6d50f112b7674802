# `make help` lists the commands. The first one that needs it makes the environment, in .venv/.
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow fuzz lint wheel bench docs notebooks check-notebooks clean

PYTHON := .venv/bin/python
READY := .venv/installed
# Two workers of one thread each: more threads than that only wait for each other. The tests of a
# file share what they compute, so that one worker runs them all.
PYTEST := OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 17

demo: $(READY)  ## enhance a bundled noisy recording; writes out/
	$(PYTHON) examples/01_first_enhancement.py

test: lint  ## style, types, and the fast tests with the examples of the docstrings
	$(PYTEST)

test-slow: $(READY)  ## the tests that take minutes: calibration, coverage
	$(PYTEST) -m slow

fuzz: $(READY)  ## read 20,000 damaged files, saving what goes wrong to out/fuzz/; kill and resume jobs 100 times
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.fuzz --mutants 20000 --seed 1 --jobs 2
	OMP_NUM_THREADS=1 $(PYTHON) -m tests.fuzz.kill --kills 25 --seed 1

lint: $(READY)  ## style and types only
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pyright

wheel: $(READY)  ## build dist/*.whl
	rm -rf build dist
	$(PYTHON) -m build --wheel

bench: $(READY)  ## measure quality and cost, hours; writes benchmarks/results/, fills the pages
	$(PYTHON) benchmarks/run.py

docs: $(READY)  ## build the documentation as a site, out/docs/index.html; what is amiss is an error
	@$(PYTHON) -c 'import latex2mathml, material, mkdocstrings_handlers.python' 2>/dev/null || { \
		echo "Installing the extra 'docs' (MkDocs and its theme, about 20 MB), once." && \
		$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-input \
			--constraint constraints.txt --editable '.[docs]'; } || { \
		echo "The extra 'docs' could not be installed (see above; is there a network?). Then:" >&2; \
		echo "  $(PYTHON) -m pip install --constraint constraints.txt --editable '.[docs]'" >&2; \
		exit 1; }
	NO_MKDOCS_2_WARNING=1 OMP_NUM_THREADS=1 $(PYTHON) -m mkdocs build --strict

notebooks: $(READY)  ## run examples/notebooks and keep what they show
	OMP_NUM_THREADS=1 $(PYTHON) scripts/notebooks.py --run

check-notebooks: $(READY)  ## check examples/notebooks, and run them with fewer steps
	$(PYTHON) scripts/notebooks.py --check --reduced

clean:  ## remove what the other commands made, except .venv/
	rm -rf out build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .coverage
	find avse_ppl tests scripts examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

$(READY): pyproject.toml constraints.txt scripts/make_venv.sh
	@scripts/make_venv.sh
