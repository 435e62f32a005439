# Every target sets up what it needs at first use. PYTHON chooses the interpreter (3.11 or later).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# TORCH_INDEX chooses where torch comes from: on Linux, PyPI's build brings gigabytes of CUDA, and
# https://download.pytorch.org/whl/cpu has the CPU build.
TORCH := $(shell grep '^torch==' constraints.txt)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Packages the tests compare with, without what they ask for: that would bring torchvision, and with
# it another torch.
PEERS := k-diffusion torchdiffeq torchsde trampoline \
	torch-fidelity torchmetrics lightning-utilities clean-fid pytorch-fid prdc \
	timm transformers tokenizers

.PHONY: guide test test-slow check format docs speedrun bench clean

guide: $(VENV)/.installed ## compare samplers, steps and guidance on the shipped model
	$(BIN)/underone guide

test: $(VENV)/.tests ## run the quick tests
	$(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(VENV)/.tests ## run the tests that take seconds each
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

check: $(VENV)/.check ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.tests ## draw the pictures of the documentation anew
	$(BIN)/underone sample fashion-mnist --sampler ddim --steps 20 --count 50 --precision float32 \
		--out docs/samples.png
	$(BIN)/underone trajectory fashion-mnist --precision float32 --out docs/editing-trajectory.png
	$(BIN)/underone vary fashion-mnist --images fashion-mnist --precision float32 \
		--out docs/editing-variations.png
	$(BIN)/underone inpaint fashion-mnist --images fashion-mnist --box 8:8:20:20 --variations 6 \
		--precision float32 --out docs/editing-inpainting.png
	$(BIN)/underone invert fashion-mnist --images fashion-mnist --out docs/editing-inversion.png
	$(BIN)/underone interpolate fashion-mnist --images fashion-mnist --guidance -1 \
		--out docs/editing-interpolation.png
	$(BIN)/underone likelihood fashion-mnist --data fashion-mnist --count 60 --steps 10 \
		--picture docs/likelihood.png
	$(BIN)/python docs/explore_picture.py

speedrun: $(VENV)/.tests ## train from scratch for 15 minutes, and measure every minute of it
	$(BIN)/python benchmarks/speedrun.py
	$(BIN)/python benchmarks/page.py

bench: $(VENV)/.tests ## measure speed anew, on an idle machine, and write docs/benchmarks.md
	$(BIN)/python benchmarks/machine_share.py
	$(BIN)/python benchmarks/diffusers_speed.py
	$(BIN)/python benchmarks/fid.py
	$(BIN)/python benchmarks/precision_recall.py
	$(BIN)/python benchmarks/study_overhead.py
	$(BIN)/python benchmarks/sampler_overhead.py
	$(BIN)/python benchmarks/growth.py
	$(BIN)/python benchmarks/page.py

format: $(VENV)/.check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(VENV)/.installed: pyproject.toml constraints.txt
	@echo 'Setting up $(VENV), once: a minute or two.'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) '$(TORCH)'
	$(PIP) --constraint constraints.txt --editable .
	touch $@

$(VENV)/.tests: $(VENV)/.installed
	$(PIP) --constraint constraints.txt --editable '.[test]'
	$(PIP) --constraint constraints.txt --no-deps $(PEERS)
	touch $@

$(VENV)/.check: $(VENV)/.tests
	$(PIP) --constraint constraints.txt --editable '.[check]'
	touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
