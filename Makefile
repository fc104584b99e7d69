# What a person types. Each target says what it does; `make` alone lists them.
# Root and Debian are needed wherever containers run; `make test-unprivileged` needs neither.

SHELL := /bin/bash
TARGET := target/x86_64-unknown-linux-gnu
IMAGES := target/test-images

.PHONY: help tools build release demo test test-unprivileged scenarios vm crash conformance oracle oracle-down bench images packages lint install clean

help:
	@echo 'make demo               see it work: installs what it needs, builds, runs containers, cleans up'
	@echo 'make release            the static binary, $(TARGET)/release/gantry'
	@echo 'make test               everything that a change must pass (root, Debian)'
	@echo 'make test-unprivileged  the pure tests alone'
	@echo 'make scenarios          what a user does, on Gantry       (T=name chooses)'
	@echo 'make vm                 kernel tests and scenarios, emulated, control groups version 2 (V="..." chooses)'
	@echo 'make crash              the long crash tests: 300 kills of containers, 200 of transfers  (KILLS=n SEED=n)'
	@echo 'make conformance        the suite of the distribution specification on the registry  (SUITE=program)'
	@echo 'make oracle             the scenarios and archives on the real Docker  (RECORD=1 records its answers anew)'
	@echo 'make bench              Gantry beside Docker and podman   (B="..." chooses)'
	@echo 'make install            /usr/local/bin/gantry, and docker if that is free'

build: tools
	cargo build --workspace --bins

release: tools
	cargo build --release --package gantry
	@ls -l $(TARGET)/release/gantry

demo:
	demo/run

tools:
	tests/packages build

packages:
	tests/packages test

images: packages
	cargo xtask images $(IMAGES)

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

# Tests of the kernel share mounts, links and control groups of one machine: one test program at a time. The last ones are
# the scenarios, with Gantry's client and with Docker's, and the short crash test.
test: images lint build
	GANTRY_DOCKER="$$(tests/docker-client || echo docker)" cargo test --workspace --no-fail-fast

test-unprivileged:
	tests/unprivileged

scenarios: images build
	GANTRY_DOCKER="$$(tests/docker-client || echo docker)" cargo test --package gantry-testkit --test scenarios -- $(T)

vm: images
	tests/vm/run $(V)

crash: images build
	GANTRY_CRASH_KILLS=$(or $(KILLS),300) $(if $(SEED),GANTRY_CRASH_SEED=$(SEED)) cargo test --package gantry-testkit --test crash
	GANTRY_TRANSFER_KILLS=$(or $(KILLS),200) $(if $(SEED),GANTRY_TRANSFER_SEED=$(SEED)) cargo test --package gantry-testkit --test transfers -- --nocapture

conformance: build
	tests/conformance $(SUITE)

oracle: images
	bench/peers up
	GANTRY_DOCKER="$$(tests/docker-client)" GANTRY_ORACLE_SOCKET=/run/peer-docker.sock $(if $(RECORD),GANTRY_RECORD=1) \
	  cargo test --package gantry-testkit --test scenarios --test archives -- $(T)

oracle-down:
	bench/peers down

bench: release
	tests/packages bench
	bench/peers up
	bench/images make
	bench/run $(B)
	bench/run --table

install: release
	install -m 755 $(TARGET)/release/gantry /usr/local/bin/gantry
	@command -v docker >/dev/null || ln -s gantry /usr/local/bin/docker

clean:
	cargo clean
