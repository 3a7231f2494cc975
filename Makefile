# Everything a newcomer needs: each target first sets up what it needs, into ./.venv.

BIN := .venv/bin

.PHONY: demo serve test lint screenshots clean

demo: .venv/base.stamp  ## three recorded systems through the demo set, and the board
	$(BIN)/vivace demo

serve: .venv/base.stamp  ## the leaderboard in the browser
	$(BIN)/vivace serve

test: .venv/dev.stamp  ## all tests
	scripts/test-tools
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --ignore tests/engine
	$(BIN)/python -m pytest tests/engine  # these start crowds of processes of their own, and stop some

lint: .venv/dev.stamp  ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

screenshots: .venv/dev.stamp  ## the README's pictures, from a fresh demo
	scripts/test-tools
	rm -rf .venv/screenshots && $(BIN)/vivace demo --home .venv/screenshots
	$(BIN)/python docs/make_screenshots.py --home .venv/screenshots

.venv/base.stamp: pyproject.toml constraints.txt scripts/setup
	scripts/setup .
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt scripts/setup
	scripts/setup '.[dev]'
	touch $@ .venv/base.stamp

clean:  ## remove the virtual environment and caches; results in .vivace stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
