# `make` alone lists the targets. Each does its own set-up (scripts/setup), also in a fresh clone.
# PYTHON=python3.13 names the Python that .venv is made of (any target; it stays until another is named).
# K=retrace runs only the tests with that in a file's or test's name (pytest -k).
.POSIX:
.SUFFIXES:
.PHONY: help demo test test-fast labs faults theorem bench fuzz lint format schema golden lock clean man licences dist \
	bundle deb rpm

RUN = .venv/bin/python
# On all cores, in groups that share what is slow to make (tests/conftest.py).
PYTEST = $(RUN) -m pytest -n auto
COMPILE = $(RUN) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --only-binary :all: --no-annotate --custom-compile-command "make lock"

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: ## rename, query and restore two example payloads (no compiler needed)
	@scripts/setup demo
	@PATH="$$PWD/.venv/bin:$$PATH" scripts/demo

test: lint ## everything: lint, and all tests with a real Xen, 4.17 and 4.20
	@scripts/setup test
	$(PYTEST) $${K:+-k "$$K"}

test-fast: lint ## the same without Xen
	@scripts/setup test-fast
	$(PYTEST) -m "not xen" $${K:+-k "$$K"}

labs: ## ask every real hypervisor: x86_64 with Xen 4.14, 4.17 and 4.20, arm64, arm32 (12 minutes)
	@scripts/setup labs
	LPMANGLE_LABS=$${LPMANGLE_LABS:-all} $(PYTEST) tests/lab $${K:+-k "$$K"}

faults: ## all faults of the file system at all calls; make test tries those that are known
	@scripts/setup test-fast
	LPMANGLE_FAULTS=all $(PYTEST) tests/faults

theorem: ## 10,000 random stacks of payloads, before and after mangling; make test tries 300. LPMANGLE_SEED=N for others
	@scripts/setup test-fast
	LPMANGLE_STACKS=10000 $(RUN) -m pytest -s tests/theorem

bench: ## measure lpmangle against the alternatives; every figure in bench.json (a quarter of an hour)
	@scripts/setup test-fast
	$(RUN) -m benchmarks --json bench.json

fuzz: ## feed all readers hostile input; or READER=elf, MINUTES=10 or RUNS=1000000 for each (x86_64, Python 3.11 to 3.13)
	@scripts/setup dev
	@$(RUN) -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-fuzz.lock
	PYTHONPATH=tests $(RUN) -m fuzz $$READER $${RUNS:+--runs=$$RUNS} $${MINUTES:+--minutes=$$MINUTES}

lint: ## ruff, mypy, and who may import whom
	@scripts/setup dev
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check
	$(RUN) -m mypy
	.venv/bin/lint-imports --no-logo --no-cache

format: ## lay the code out, and mend what ruff can mend
	@scripts/setup dev
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

schema: ## write lpmangle/manifest/manifest.schema.json from the types
	@scripts/setup dev
	$(RUN) -c 'from pathlib import Path; from lpmangle.manifest.read import schema; \
		Path("lpmangle/manifest/manifest.schema.json").write_text(schema())'

man: ## write share/man from the help texts
	@scripts/setup dev
	$(RUN) scripts/man-pages share/man/man1

golden: ## renew fixtures, examples and the outputs shown in the README; read the diff
	@scripts/setup test-fast
	$(RUN) tests/corpus.py --update-fixtures
	$(RUN) examples/rebuild
	$(RUN) tests/doc_examples.py --update

lock: ## renew the exact versions and hashes in requirements*.lock
	@scripts/setup dev
	$(COMPILE) -o requirements-dev.lock --group dev pyproject.toml
	$(COMPILE) -o requirements.lock -c requirements-dev.lock pyproject.toml
	$(COMPILE) -o requirements-build.lock -c requirements-dev.lock --group build
	echo atheris | $(COMPILE) -o requirements-fuzz.lock -
	@$(MAKE) licences

licences: ## write docs/licences.md from what the locked packages say of themselves
	@scripts/setup dev
	$(RUN) scripts/licences >docs/licences.md

dist: ## build sdist and wheel of the last commit in dist/, the same bytes everywhere
	@scripts/setup dev
	scripts/dist

bundle deb rpm: ## for hosts without a network, into dist/: an archive that installs all by itself, packages for Debian and RPM
	@scripts/setup dev
	scripts/package dist $@

clean: ## remove everything that the other targets made
	rm -rf .venv .cache .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -prune -exec rm -rf {} +
