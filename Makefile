# make course   run the whole course headless; the report is build/course/index.html
# make test     run every test, and the committed notebooks' own checks
# make lab      open JupyterLab on the course
# make student  write the edition without solutions into student/; changed work there is never overwritten
# make tables   make the tables of README.md again from the reports in data/reports
# make clean    remove the environment and what the targets above left behind
#
# Two notebooks, or two files of tests, run at a time: JOBS=4 for a larger machine, JOBS=1 for one short of memory.
# COMPARE=--compare lets `make course` compare the outputs that nbval compares; NBVAL names the notebooks that nbval runs.
#
# Each target sets up .venv by itself when it is missing or older than the dependency files.

PYTHON3 ?= python3
VENV    := .venv
PYTHON  := $(VENV)/bin/python
READY   := $(VENV)/.ready
JOBS    ?= 2
COMPARE ?=
NBVAL   ?= notebooks
SPREAD  := -n $(JOBS) --dist loadfile
QUIET   := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE

# pip compiles nothing ahead, so what is imported must be kept compiled: every kernel would do it again, 15 s each time.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: course test lab student tables clean

course: $(READY)
	$(PYTHON) -m lasslab.course.runner --out build/course --jobs $(JOBS) $(COMPARE)

test: $(READY)
	$(QUIET) MPLBACKEND=Agg $(PYTHON) -m pytest $(SPREAD) --durations=8 tests
	$(QUIET) $(PYTHON) -m pytest $(SPREAD) --nbval-lax --nbval-current-env -p no:cacheprovider $(NBVAL)

lab: $(READY)
	$(PYTHON) -m jupyterlab notebooks

student: $(READY)
	$(PYTHON) -m lasslab.cli student -o student

tables: $(READY)
	$(PYTHON) -m lasslab.evaluation.readme README.md --reports data/reports

clean:
	rm -rf .venv build .pytest_cache .hypothesis .ruff_cache

$(READY): pyproject.toml constraints.txt
	$(PYTHON3) -c 'import sys; assert sys.version_info >= (3, 11), "lasslab needs Python 3.11 or newer; set PYTHON3 to one"'
	test -x $(PYTHON) || $(PYTHON3) -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --no-compile -c constraints.txt -e ".[offline,dev,corpora]"
	$(PYTHON) -c 'import torch'
	touch $@
