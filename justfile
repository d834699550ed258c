# Commands for developing this repository; `just` lists them.

_default:
    @just --list

# Run all CI checks
check:
    .ci/run

# Run the tests
test:
    cargo test --workspace

# Run a complete task against fakes on this machine
demo *ARGUMENTS:
    cargo run --bin demo -- {{ARGUMENTS}}

# Attack the sandboxes and write the results into docs/security.md
attacks:
    cargo test --workspace --test hostile
    cargo run -q --bin security_table

# Format the code
format:
    cargo fmt --all

# Check words, test names and spelling (needs typos)
words:
    .ci/words
    typos

# Write the generated files; CI fails if they differ
generate:
    cargo run -q --bin supervisor -- schema > docs/contract.schema.json
    cargo run -q --bin dispatcher -- config-schema > docs/orchestrator.schema.json
    cargo run -q --bin dispatcher -- crd > dispatcher/deploy/crd.yaml

# Build the code documentation
docs:
    cargo doc --workspace --no-deps --document-private-items

# Check licenses, sources and duplicates of dependencies (needs cargo-deny)
deny:
    cargo deny check bans licenses sources

# Check dependencies for known vulnerabilities (needs cargo-deny); results change without a commit
advisories:
    cargo deny check advisories

# Fuzz the stdio input (needs cargo-fuzz and a nightly toolchain)
fuzz SECONDS="60":
    cargo +nightly fuzz run stdio --fuzz-dir dispatcher/fuzz -- -max_total_time={{SECONDS}}
