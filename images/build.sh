#!/usr/bin/env bash
# Builds the images `agent` and `dispatcher`.
#
#   images/build.sh agent      [options]
#   images/build.sh dispatcher [options]
set -euo pipefail

usage() {
    cat <<'TEXT'
Builds an image with docker, podman or buildah.

  images/build.sh agent [options]        supervisor, Claude Code CLI, MCP servers, git, ssh
  images/build.sh dispatcher [options]   the dispatcher only

  --tag NAME         Image name [default: orchestrator/agent:VERSION, orchestrator/dispatcher:VERSION]
  --rust             agent: add a Rust toolchain and the rustdocs server, from --rust-image
  --toolchain DIR    agent: add this Rust toolchain (a directory with bin/cargo) instead; the first
                     one is the default, a nightly one enables the rustdocs server (repeatable)
  --rustdoc-mcp FILE agent, with --toolchain: the rustdocs server [default: built with cargo]
  --base IMAGE       Base image [default: node:22-bookworm-slim]
  --base-tar FILE    Import a tar made by images/base.sh and use it as base image
  --rust-image IMAGE Source of the toolchain for --rust [default: rust:1.95-slim-bookworm]
  --program FILE     Supervisor or dispatcher binary [default: a static one, built with cargo]
  --engine PROGRAM   docker, podman or buildah [default: the first one installed]
  --no-sbom          Omit the bill of materials of the Rust program (needs cargo-cyclonedx)
  --quiet            Print only errors and the result
  -h, --help         Print help

Honors DOCKER_HOST. Example for a machine without access to an image registry:

  images/base.sh && images/build.sh agent --base-tar target/images/base-node22.tar \
      --toolchain ~/.rustup/toolchains/stable-x86_64-unknown-linux-gnu
TEXT
}

say() { $quiet || echo "build.sh: $*" >&2; }
die() {
    echo "build.sh: $*" >&2
    exit 1
}
misused() {
    echo "build.sh: $*; see --help" >&2
    exit 64
}

image=
tag=
rust=false
toolchains=()
rustdoc_mcp=
base=node:22-bookworm-slim
base_tar=
rust_image=rust:1.95-slim-bookworm
program=
engine=
sbom=true
quiet=false

while (($# > 0)); do
    case "$1" in
        agent | dispatcher) [[ -z $image ]] || misused "one image at a time"; image=$1; shift; continue ;;
        --rust) rust=true; shift; continue ;;
        --no-sbom) sbom=false; shift; continue ;;
        --quiet) quiet=true; shift; continue ;;
        -h | --help) usage; exit 0 ;;
    esac
    (($# > 1)) || misused "unknown argument or missing value: \`$1\`"
    case "$1" in
        --tag) tag=$2 ;;
        --toolchain) toolchains+=("$2") ;;
        --rustdoc-mcp) rustdoc_mcp=$2 ;;
        --base) base=$2 ;;
        --base-tar) base_tar=$2 ;;
        --rust-image) rust_image=$2 ;;
        --program) program=$2 ;;
        --engine) engine=$2 ;;
        *) misused "unknown argument \`$1\`" ;;
    esac
    shift 2
done

[[ -n $image ]] || misused "which image: agent or dispatcher?"
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Resolve paths of the command line before changing the directory.
for variable in base_tar program rustdoc_mcp; do
    [[ -z ${!variable} ]] || printf -v "$variable" %s "$(realpath -- "${!variable}")"
done
for index in "${!toolchains[@]}"; do
    toolchains[index]=$(realpath -- "${toolchains[index]}")
    [[ -x ${toolchains[index]}/bin/cargo ]] ||
        die "invalid toolchain \`${toolchains[index]}\`: missing bin/cargo. rustup stores toolchains in ~/.rustup/toolchains"
done
if [[ $image == dispatcher ]] && { $rust || ((${#toolchains[@]} > 0)); }; then
    misused "the dispatcher image takes no toolchain"
fi

cd "$here/.."
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
tag=${tag:-orchestrator/$image:$version}

# Debian's docker has BuildKit built in; another docker in PATH may lack the plug-in.
if [[ -z $engine ]]; then
    for candidate in /usr/bin/docker docker podman buildah; do
        if command -v "$candidate" >/dev/null; then
            engine=$candidate
            break
        fi
    done
fi
[[ -n $engine ]] || die "docker, podman or buildah not found; install one, or set --engine"
command -v "$engine" >/dev/null || die "\`$engine\` is not installed"
kind=$(basename "$engine")
if [[ $kind == docker ]]; then
    "$engine" version >/dev/null 2>&1 ||
        die "docker does not respond${DOCKER_HOST:+ at $DOCKER_HOST}; start it (images/engine.sh start), or set DOCKER_HOST"
fi

# The program is static, so that it runs on any base image.
if [[ -z $program ]]; then
    name=supervisor
    [[ $image == agent ]] || name=dispatcher
    target=$(rustc -vV | sed -n 's/^host: //p')
    say "building $name for $target; the first build takes minutes"
    ORCHESTRATOR_COMMIT=$revision RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" cargo build --quiet --release --target "$target" \
        --bin supervisor --bin dispatcher
    say "built $name after $SECONDS s"
    program=${CARGO_TARGET_DIR:-target}/$target/release/$name
fi
[[ -x $program ]] || die "program \`$program\` not found"

context=target/images/$image
rm -rf "$context"
mkdir -p "$context/sbom"
cp -a "images/$image/." "$context/"

# Copies a toolchain to where rustup expects it, without its documentation.
add_toolchain() {
    local from=$1 name to
    name=$(basename "$from")
    to=$context/toolchain/rustup/toolchains/$name
    mkdir -p "$(dirname "$to")"
    # Hard links are free; across file systems only copies work.
    cp -al "$from" "$to" 2>/dev/null || { rm -rf "$to"; cp -a "$from" "$to"; }
    rm -rf "$to/share/doc" "$to/share/man"
    echo "$name"
}

add_toolchains() {
    local root=$context/toolchain first='' name nightly=false rustup from program
    # rustup creates these at its first start, which a read-only root prevents.
    mkdir -p "$root/cargo/bin" "$root"/rustup/{downloads,tmp,update-hashes}
    for from in "${toolchains[@]}"; do
        name=$(add_toolchain "$from")
        first=${first:-$name}
        [[ $name != nightly* ]] || nightly=true
    done
    rustup=$(command -v rustup) || die "rustup not found; it is copied with the toolchain"
    install -m 0755 "$(realpath "$rustup")" "$root/cargo/bin/rustup"
    for program in cargo cargo-clippy cargo-fmt clippy-driver rustc rustdoc rustfmt; do
        ln -s rustup "$root/cargo/bin/$program"
    done
    printf 'version = "12"\nprofile = "minimal"\ndefault_toolchain = "%s"\n' "$first" >"$root/rustup/settings.toml"
    if ! $nightly; then
        say "no nightly toolchain: skipping the rustdocs server"
    elif [[ -n $rustdoc_mcp ]]; then
        install -m 0755 "$rustdoc_mcp" "$root/cargo/bin/rustdoc-mcp"
    else
        local mcp_version
        mcp_version=$(sed -n 's/^ARG RUSTDOC_MCP=//p' images/agent/Containerfile)
        [[ -x target/tools/bin/rustdoc-mcp ]] ||
            cargo install --quiet rustdoc-mcp --version "$mcp_version" --locked --root target/tools
        install -m 0755 target/tools/bin/rustdoc-mcp "$root/cargo/bin/rustdoc-mcp"
    fi
}

arguments=()
if [[ $image == agent ]]; then
    install -m 0755 "$program" "$context/supervisor"
    stage=agent
    if ((${#toolchains[@]} > 0)); then
        stage=agent-rust
        add_toolchains
        arguments+=(--build-arg TOOLCHAIN_FROM=folder)
    elif $rust; then
        stage=agent-rust
        arguments+=(--build-arg "RUST_IMAGE=$rust_image")
    fi
    arguments+=(--target "$stage")
else
    install -m 0755 "$program" "$context/dispatcher"
fi

if $sbom && cargo cyclonedx --version >/dev/null 2>&1; then
    package=supervisor
    [[ $image == agent ]] || package=dispatcher
    cargo cyclonedx --quiet --format json --manifest-path "$package/Cargo.toml" --override-filename "sbom-of-$package" &&
        mv "$package/sbom-of-$package.json" "$context/sbom/cargo-$package.cdx.json"
elif $sbom; then
    say "cargo-cyclonedx is not installed: adding Cargo.lock instead of a bill of materials of the Rust program"
    cp Cargo.lock "$context/sbom/"
fi

if [[ -n $base_tar ]]; then
    [[ -s $base_tar ]] || die "\`$base_tar\` is missing or empty; images/base.sh creates it"
    base=orchestrator/base:$(sha256sum "$base_tar" | cut -c 1-12)
    change=()
    # Only a base for tests has extra CA certificates.
    if tar -tf "$base_tar" ./usr/local/share/extra-ca.pem >/dev/null 2>&1; then
        change=('ENV NODE_EXTRA_CA_CERTS=/usr/local/share/extra-ca.pem')
    fi
    case "$kind" in
        buildah)
            container=$(buildah from scratch)
            buildah add --quiet "$container" "$base_tar" / >/dev/null
            [[ ${#change[@]} == 0 ]] || buildah config --env "${change[0]#ENV }" "$container"
            buildah commit --quiet --rm "$container" "$base" >/dev/null
            ;;
        *)
            "$engine" image inspect "$base" >/dev/null 2>&1 ||
                "$engine" import ${change[0]:+-c "${change[0]}"} "$base_tar" "$base" >/dev/null
            ;;
    esac
    say "base image $base"
fi

label() { arguments+=(--label "org.opencontainers.image.$1=$2"); }
label title "orchestrator $image"
label version "$version"
label revision "$revision"
label created "$(git log -1 --format=%cI 2>/dev/null || date -u +%FT%TZ)"
label licenses Apache-2.0
label base.name "$base"
arguments+=(--build-arg "BASE=$base" --tag "$tag" --file "$context/Containerfile")

log=$context.log
say "building $tag; log: $log"
command=(build)
[[ $kind != docker ]] || export DOCKER_BUILDKIT=1
[[ $kind != docker ]] || command+=(--progress=plain)
[[ $kind != buildah ]] || command=(bud)
# Host network: package registries may be reachable only through this machine's resolver.
if ! "$engine" "${command[@]}" --network=host "${arguments[@]}" "$context" >"$log" 2>&1 </dev/null; then
    tail -n 30 "$log" >&2
    die "the build failed; full log: $log"
fi
rm -rf "$context"
say "built $tag after $SECONDS s"
echo "$tag"
