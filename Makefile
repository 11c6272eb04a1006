# `make demo` shows what edgescribe does; `make test` tests it. Each sets itself up.
VENV ?= .venv
BIN := $(VENV)/bin
MIC ?=
TEST_PACKAGES := mosquitto mosquitto-clients libasound2 libasound2-plugins pulseaudio openssl systemd git gpg gpg-agent
TEST_PACKAGES += procps e2fsprogs
TESTS ?=
NEW_PYTHON_TESTS := tests/unit tests/contract tests/acceptance/command_line/test_complaints.py tests/integration/test_mqtt_security.py
ARCH ?= $(shell uname -m)
CPU ?= native
EXTRA ?= none
FOR_PYTHON ?=
HOST_TEST_PACKAGES := debootstrap openssh-client iproute2
COMPILER_PACKAGES := gcc libc6-dev python3-dev
TEST_JOBS ?= $(shell expr 2 "*" $$(nproc))

.DEFAULT_GOAL := help
.PHONY: help demo test docs debian13 hosts host-packages arm64 home-assistant power-cut power-cut-packages everything lint format wheelhouse lock clean

help: ## what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## transcribe a bundled recording (MIC=1: your microphone) and show what a subscriber receives
ifeq ($(MIC),)
	@scripts/virtualenv $(VENV) demo
	@$(BIN)/edgescribe demo
else
	@scripts/system-packages libasound2 $(COMPILER_PACKAGES)
	@scripts/virtualenv $(VENV) demo
	@$(BIN)/edgescribe demo --mic
endif

test: ## install what the tests need, and run them all (TESTS=tests/unit: these only, TEST_JOBS=1: one by one)
	@scripts/system-packages $(TEST_PACKAGES) $(COMPILER_PACKAGES)
	@scripts/virtualenv $(VENV) dev
	@$(BIN)/pytest --numprocesses $(TEST_JOBS) --dist loadfile $(TESTS)

debian13: ## the demo, and the unit and contract tests, in a Debian 13 with Python 3.13 (root; some minutes)
	@scripts/system-packages debootstrap
	@EDGESCRIBE_MODELS__DIR=$(CURDIR)/.edgescribe/test-models scripts/in-debian trixie make demo VENV=/opt/edgescribe
	@scripts/in-debian trixie make test VENV=/opt/edgescribe \
		TESTS="-o cache_dir=.pytest_cache/debian13 $(or $(TESTS),$(NEW_PYTHON_TESTS))"

hosts: host-packages ## boot Debians with systemd: the unit, README's way to a device, a fleet rolled out to by SSH (root; half an hour)
	@scripts/virtualenv $(VENV) dev
	@$(BIN)/pytest -rP -o cache_dir=.pytest_cache/hosts -m "fleet or systemd_host" $(or $(TESTS),tests/deploy)

host-packages:
	@scripts/system-packages $(TEST_PACKAGES) $(HOST_TEST_PACKAGES) $(COMPILER_PACKAGES)

arm64: ## make wheelhouses for ARM, and install and run them in an emulated Debian (root; half an hour)
	@scripts/system-packages debootstrap qemu-user qemu-user-static $(COMPILER_PACKAGES)
	@scripts/virtualenv $(VENV) dev
	@$(BIN)/pytest -m arm64

home-assistant: ## a real Home Assistant finds the device and speaks with it (some minutes)
	@scripts/system-packages $(TEST_PACKAGES) $(COMPILER_PACKAGES)
	@scripts/virtualenv $(VENV) dev
	@$(BIN)/pytest -o cache_dir=.pytest_cache/home-assistant -m home_assistant tests/acceptance/home_assistant

power-cut: power-cut-packages ## cut the power of a user-mode Linux while the outbox writes (EDGESCRIBE_POWER_CUTS=20)
	@scripts/virtualenv $(VENV) dev
	@$(BIN)/pytest -rP -o cache_dir=.pytest_cache/power-cut -m power_cut tests/deploy/power_cut

power-cut-packages:
	@scripts/system-packages user-mode-linux e2fsprogs $(COMPILER_PACKAGES)

everything: test debian13 hosts arm64 home-assistant power-cut ## all of the above (root; two hours)

lint: ## ruff, mypy, ansible-lint, and what systemd-analyze says of the units
	@scripts/system-packages systemd procps
	@scripts/virtualenv $(VENV) dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@scripts/lint-ansible $(VENV)
	@$(BIN)/pytest --quiet tests/deploy/test_unit.py tests/deploy/test_timers.py

docs: ## build the documentation site in site/, and check its links
	@scripts/virtualenv $(VENV) docs
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@$(BIN)/python scripts/check-links site

format: ## let ruff format and fix
	@scripts/virtualenv $(VENV) dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

wheelhouse: ## what a kind of device installs from, offline: ARCH=aarch64 CPU=cortex-a76 (docs/wheelhouse.md)
	@scripts/wheelhouse --arch $(ARCH) --cpu $(CPU) --extra $(EXTRA) $(if $(FOR_PYTHON),--python $(FOR_PYTHON))

lock: ## pin what wheelhouses take from the package index (UPGRADE=1: the newest)
	@scripts/lock $(if $(UPGRADE),--upgrade)

clean: ## remove the virtual environment, caches and test models
	rm -rf $(VENV) build dist site .edgescribe .mypy_cache .ruff_cache .pytest_cache *.egg-info
