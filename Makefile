# `make` alone lists what there is to make.
.DEFAULT_GOAL := help
.PHONY: help demo test vmtest soak build plugins guests bench install check clean

WASM := wasm32-unknown-unknown
# As cargo has it; .cargo/config.toml says `target` where the variable is not set.
TARGET := $(or $(CARGO_TARGET_DIR),target)
PLUGINS := $(TARGET)/$(WASM)/release
COUNT := 20000
SEED := 1
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)
# Always the whole workspace: with -p, cargo chooses other features for some crates, and builds wasmtime once more.
CARGO_ALL := --locked --workspace

help: ## list these targets
	@sed -nE 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: build plugins ## trace this machine for five seconds with the examples (sets up all it needs)
	@script/demo $(AS_ROOT) $(TARGET)/debug/porthole $(PLUGINS)

test: guests ## pass the tests; those with `root` in their name need root and say so where they are skipped
	cargo test $(CARGO_ALL)
	cd examples && cargo test --locked

vmtest: guests ## pass those tests inside stock Debian kernels, in QEMU, as root: all of KERNELS="6.1 6.12 7.2"
	script/vm/test $(KERNELS)

soak: ## load COUNT random programs (20000) into this kernel, from SEED (1) on, as root
	PORTHOLE_COUNT=$(COUNT) PORTHOLE_SEED=$(SEED) cargo test $(CARGO_ALL) --test random_programs root_random -- --nocapture

build: ## build the host
	@script/setup $(WASM)
	cargo build $(CARGO_ALL)

plugins: ## build the examples
	@script/setup $(WASM)
	cd examples && cargo build --locked --release --target $(WASM)

guests: plugins ## build the examples and the plugins that the tests run
	@script/setup $(WASM) wasm32-wasip2
	cd tests/guests && cargo build --locked --release --target $(WASM)
	cd tests/guests && cargo build --locked --release --target wasm32-wasip2

bench: plugins guests ## measure, side by side with bpftrace and with clang where they are installed
	cargo build $(CARGO_ALL) --release --bins
	$(AS_ROOT) bench/run
	$(AS_ROOT) $(TARGET)/release/compile-cost
	$(AS_ROOT) $(TARGET)/release/kernel-cost

install: ## build for speed, and install the host into cargo's bin folder
	@script/setup $(WASM)
	cargo install --locked --path host

check: ## formatting, lints and links of the documentation, with warnings denied
	cargo fmt --check
	cd examples && cargo fmt --check
	cd tests/guests && cargo fmt --check
	cargo clippy $(CARGO_ALL) --all-targets -- -D warnings
	cd examples && cargo clippy --locked --all-targets -- -D warnings
	cd tests/guests && cargo clippy --locked --target $(WASM) -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc $(CARGO_ALL) --no-deps --document-private-items

clean: ## delete what was built
	cargo clean
