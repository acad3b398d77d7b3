# Set-up and the two commands that show and check everything; README has the same steps as plain
# pip and python commands for Windows and macOS.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# make demo CLIP=my.mp4 SKY=my.png takes your own; without them the project's own scene and sky.
CLIP ?=
SKY ?= build/sunset.png
# Folders are named after the clip, so that clips do not overwrite each other.
NAME := $(if $(CLIP),$(shell basename "$(CLIP)" | sed 's/\.[^.]*$$//; s/[^A-Za-z0-9._-]/_/g'),demo)
INPUT := $(if $(CLIP),$(CLIP),build/demo.mp4)
OUT := results/$(NAME)
# The demo's balloon is a layer of its own; for other clips preprocess decides.
MASKS ?= $(if $(CLIP),,--masks motion sky)

.PHONY: install demo test types clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/python -m pip install -e ".[dev]"
	touch $@

build/sunset.png: $(VENV)/installed
	mkdir -p build
	$(BIN)/python -c "import cv2; cv2.imwrite('$@', cv2.imread('edits/skies/sunset.jpg'))"

demo: $(VENV)/installed $(if $(filter build/sunset.png,$(SKY)),build/sunset.png)
	$(if $(CLIP),,$(BIN)/python -m tests.synthetic --out build/demo.mp4)
	$(BIN)/python -m preprocess "$(INPUT)" --out data/$(NAME) $(MASKS)
	$(BIN)/python train.py data/$(NAME) --out runs/$(NAME) --resume
	mkdir -p $(OUT)
	$(BIN)/python edit.py runs/$(NAME) --sky "$(SKY)" --out $(OUT)/edited.mp4
	$(BIN)/python edit.py runs/$(NAME) --sky "$(SKY)" --out $(OUT)/before_after.mp4 --side-by-side
	$(BIN)/python evaluate.py runs/$(NAME) --sky "$(SKY)" --out $(OUT)/report
	@echo
	@echo "edited video       $(OUT)/edited.mp4"
	@echo "before and after   $(OUT)/before_after.mp4"
	@echo "atlas | fast path  $(OUT)/report/side_by_side.mp4"
	@echo "atlases            runs/$(NAME)/atlas_sky.png runs/$(NAME)/atlas_foreground.png"
	@echo "contact sheet      runs/$(NAME)/contact.png"
	@echo "report             $(OUT)/report/report.html"

test: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest

types: $(VENV)/installed-dev
	$(BIN)/pyright

clean:
	rm -rf $(VENV) build
