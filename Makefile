# Needs python3 (3.11 or newer) with venv and pip. PYTHON and VENV can be overridden.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
READY := $(VENV)/.ready

.PHONY: try test pytest soak lint docs bench clean

# Upscale a real photograph with the bundled weights, and a bicubic one beside it.
try: $(INSTALLED)
	@mkdir -p out
	@$(BIN)/python -c "from pathlib import Path; import skimage, shutil; \
	  shutil.copy(Path(skimage.__file__).parent / 'data' / 'chelsea.png', 'out/chelsea.png')"
	@$(BIN)/upres out/chelsea.png --scale 4 --overwrite
	@$(BIN)/upres out/chelsea.png --scale 4 --model bicubic -o out/chelsea-bicubic-x4.png --overwrite

# Lint and types are looked at on what the tests leave free of the cores.
test: $(READY)
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

pytest: $(READY)
	$(BIN)/pytest

# The same tests at full counts.
soak: $(READY)
	UPRES_SOAK=1 $(BIN)/pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# docs/cli.md is generated from the program, and a test compares them; so is README's picture.
docs: $(READY)
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_picture.py

# The speed and memory figures in docs/performance.md.
bench: $(READY)
	$(BIN)/pip install --quiet -e '.[dev,bench]'
	$(BIN)/upres bench --speed --model edsr-baseline --scale 2,4 --sizes 1
	$(BIN)/python benchmarks/tiling.py
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/memory.py

# pip would compile on one core; as with pip, files for other Pythons are passed over.
COMPILE = @$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

# The program, and scikit-image for its photograph.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e . scikit-image
	$(COMPILE)
	@touch $@

$(READY): $(INSTALLED)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
	$(COMPILE)
	@touch $@

clean:
	rm -rf $(VENV) out .hypothesis .mypy_cache .ruff_cache
