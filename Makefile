# Everything a newcomer needs: each target first sets up what it needs, into ./.venv.

BIN := .venv/bin

.PHONY: demo serve test test-full test-versions lint screenshots zoo zoo-twice clean

demo: .venv/demo.stamp  ## recorded systems and a live one, small sweeps of inference methods, and the boards
	$(BIN)/vivace models get smollm2-135m whisper-base > /dev/null || true
	$(BIN)/vivace demo

serve: .venv/base.stamp  ## the leaderboard in the browser
	$(BIN)/vivace serve

# Each worker takes one thread, or two cores would carry four; and bytecode is kept, or each of the many processes that
# tests start would compile all that it imports.
# Two workers more than there are cores: tests wait much of their time, for processes that end and leases that pass.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest \
	--numprocesses $(shell expr 2 + `getconf _NPROCESSORS_ONLN`) --maxprocesses 4 --dist loadfile --durations 20

test: .venv/dev.stamp  ## all tests but the slow ones
	scripts/test-tools
	$(PYTEST) -m "not full"

test-full: .venv/dev.stamp  ## the slow ones, and the methods' tests with other versions
	scripts/test-tools
	$(PYTEST) -m full --timeout 3600; failed=$$?; scripts/test-versions && exit $$failed

test-versions: .venv/base.stamp  ## the methods' tests with the oldest and newest transformers and triton, each pair alone
	scripts/test-versions

lint: .venv/dev.stamp  ## style, types, who may import whom, and what nothing uses
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/unused.py

screenshots: .venv/dev.stamp  ## the README's pictures, from a fresh demo
	scripts/test-tools
	rm -rf .venv/screenshots && $(BIN)/vivace demo --home .venv/screenshots
	$(BIN)/python docs/make_screenshots.py --home .venv/screenshots

zoo: .venv/dev.stamp  ## the zoo's models trained anew; says which differ from those in the package
	rm -rf .venv/zoo
	$(BIN)/vivace models build --output .venv/zoo
	for folder in .venv/zoo/*; do \
		cmp $$folder/model.safetensors platform/vivace/zoo/weights/$$(basename $$folder)/model.safetensors || true; \
	done

zoo-twice: .venv/dev.stamp  ## the whole build twice, side by side: it must give the same bytes
	rm -rf .venv/zoo-twice
	$(BIN)/vivace models build --output .venv/zoo-twice/one & \
	$(BIN)/vivace models build --output .venv/zoo-twice/two && wait
	diff -r .venv/zoo-twice/one .venv/zoo-twice/two

.venv/base.stamp: pyproject.toml constraints.txt scripts/setup
	scripts/setup '.[local]'
	touch $@

.venv/demo.stamp: pyproject.toml constraints.txt scripts/setup
	scripts/setup '.[packaged]'
	touch $@ .venv/base.stamp

.venv/dev.stamp: pyproject.toml constraints.txt scripts/setup
	scripts/setup '.[dev]'
	touch $@ .venv/demo.stamp .venv/base.stamp

clean:  ## remove the virtual environment and caches; results in .vivace stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
