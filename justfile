# Commands for working on this repository; `just` lists them.

_default:
    @just --list

# What CI checks
check:
    .ci/run

# The tests alone
test:
    cargo test --workspace

# A whole run against stand-ins on this machine
demo *ARGUMENTS:
    cargo run --bin demo -- {{ARGUMENTS}}

# Formats the code
format:
    cargo fmt --all

# Writes the files that the programs print; CI fails if they differ
generate:
    cargo run -q --bin supervisor -- schema > docs/contract.schema.json
    cargo run -q --bin dispatcher -- config-schema > docs/orchestrator.schema.json
    cargo run -q --bin dispatcher -- crd > dispatcher/deploy/crd.yaml

# The documentation of the code
docs:
    cargo doc --workspace --no-deps --document-private-items

# Licences, sources and duplicates of dependencies (needs cargo-deny)
deny:
    cargo deny check bans licenses sources

# Known vulnerabilities of dependencies (needs cargo-deny); changes without us
advisories:
    cargo deny check advisories

# What comes over stdio, fuzzed (needs cargo-fuzz and a nightly toolchain)
fuzz SECONDS="60":
    cargo +nightly fuzz run stdio --fuzz-dir dispatcher/fuzz -- -max_total_time={{SECONDS}}
