#!/usr/bin/env bash
# Builds the base image from Debian packages, for machines that can reach package registries
# but no image registry.
#
#   images/base.sh [--out FILE] [--node MAJOR] [--extra-ca FILE]
#
# The result is a tar of a root file system similar to `node:22-bookworm-slim`: minimal Debian
# with Node.js and npm. `images/build.sh --base-tar FILE` builds on it.
set -euo pipefail

node=22
npm=10 # the major version that Node.js 22 includes
out=
extra_ca=

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    cat <<'TEXT'

  --out FILE       Output tar [default: target/images/base-nodeMAJOR.tar]
  --node MAJOR     Major version of Node.js [default: 22]
  --extra-ca FILE  Additional CA certificates that programs in the image trust. For tests on
                   machines whose clients need them; never for images that you publish
  -h, --help       Print help

Needs root, mmdebstrap and npm. Uses the apt sources of this machine.
TEXT
}

die() {
    echo "base.sh: $*" >&2
    exit 1
}

while (($# > 0)); do
    case "$1" in
        --out) out=${2:?--out needs a file}; shift 2 ;;
        --node) node=${2:?--node needs a version}; shift 2 ;;
        --extra-ca) extra_ca=${2:?--extra-ca needs a file}; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) echo "base.sh: unknown argument \`$1\`; see --help" >&2; exit 64 ;;
    esac
done

cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${out:-target/images/base-node$node.tar}
[[ $(id -u) == 0 ]] || die "mmdebstrap needs root; run this with sudo"
for program in mmdebstrap npm; do
    command -v "$program" >/dev/null || die "\`$program\` is missing; install it and try again"
done
[[ -z $extra_ca || -s $extra_ca ]] || die "the bundle \`$extra_ca\` is missing or empty"
case "$(dpkg --print-architecture)" in
    amd64) platform=linux-x64 ;;
    arm64) platform=linux-arm64 ;;
    *) die "unsupported architecture $(dpkg --print-architecture): no Node.js package" ;;
esac

mkdir -p "$(dirname "$out")"
out=$(realpath "$out")
# Unpacking in memory is several times faster than on disk.
parent=$(dirname "$out")
if [[ -w /dev/shm ]] && (($(df --output=avail -k /dev/shm | tail -n 1) > 2000000)); then
    parent=/dev/shm
fi
work=$(mktemp -d "$parent/base.XXXXXX")
trap 'rm -rf "$work"' EXIT

files=$work/files
mkdir -p "$files"/usr/local/bin "$files"/usr/local/lib/node_modules/npm "$work/node"
(
    cd "$work"
    npm pack --silent "node-$platform@$node" "npm@$npm" >/dev/null
    tar -xzf "node-$platform"-*.tgz -C node --strip-components=1
    tar -xzf npm-*.tgz -C "$files/usr/local/lib/node_modules/npm" --strip-components=1
)
install -m 0755 "$work/node/bin/node" "$files/usr/local/bin/node"
ln -s ../lib/node_modules/npm/bin/npm-cli.js "$files/usr/local/bin/npm"
ln -s ../lib/node_modules/npm/bin/npx-cli.js "$files/usr/local/bin/npx"
if [[ -n $extra_ca ]]; then
    install -D -m 0644 "$extra_ca" "$files/usr/local/share/extra-ca.pem"
fi
tar -C "$files" --owner=0 --group=0 --numeric-owner -cf "$work/files.tar" .

sources=/etc/apt/sources.list.d/debian.sources
[[ -s $sources ]] || sources=/etc/apt/sources.list
log=$work/mmdebstrap.log
if ! TMPDIR=$work mmdebstrap --quiet --mode=root --format=tar --variant=minbase \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --customize-hook="tar-in $work/files.tar /" \
    bookworm "$out.part" "$sources" >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    die "mmdebstrap failed"
fi
mv "$out.part" "$out"
echo "$out: $(($(stat -c %s "$out") / 1000000)) MB"
