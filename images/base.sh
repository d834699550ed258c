#!/usr/bin/env bash
# Builds images from Debian packages, for machines that can reach package registries but no image
# registry.
#
#   images/base.sh            [--out FILE] [--node MAJOR] [--extra-ca FILE]
#   images/base.sh --stock    [--out FILE] [--suite SUITE]
#   images/base.sh --no-glibc [--out FILE]
#
# The result is a tar of a root file system. Without an option it is similar to
# `node:22-bookworm-slim`: minimal Debian with Node.js and npm. `images/build.sh --base-tar FILE`
# builds on it. The other two stand for images of services in tests; `docker import` makes images
# of them.
set -euo pipefail

node=22
npm=10 # the major version that Node.js 22 includes
kind=node
suite=bookworm
out=
extra_ca=

usage() {
    sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    cat <<'TEXT'

  --stock          Only Debian's essential packages: bash and coreutils, but no git, Node.js, ssh
                   or CA certificates
  --no-glibc       Only busybox, a static program: no C library, as if it were musl's
  --out FILE       Output tar [default: target/images/NAME.tar with NAME base-nodeMAJOR,
                   stock-SUITE or no-glibc]
  --suite SUITE    Debian's release for --stock, such as bullseye [default: bookworm]
  --node MAJOR     Major version of Node.js [default: 22]
  --extra-ca FILE  Additional CA certificates that programs in the image trust. For tests on
                   machines whose clients need them; never for images that you publish
  -h, --help       Print help

Needs root, mmdebstrap and npm; --no-glibc needs only apt-get. Uses the apt sources of this machine;
of these, --stock uses only the mirror.
TEXT
}

die() {
    echo "base.sh: $*" >&2
    exit 1
}

while (($# > 0)); do
    case "$1" in
        --stock) kind=stock; shift ;;
        --no-glibc) kind=no-glibc; shift ;;
        --suite) suite=${2:?--suite needs a release}; shift 2 ;;
        --out) out=${2:?--out needs a file}; shift 2 ;;
        --node) node=${2:?--node needs a version}; shift 2 ;;
        --extra-ca) extra_ca=${2:?--extra-ca needs a file}; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) echo "base.sh: unknown argument \`$1\`; see --help" >&2; exit 64 ;;
    esac
done

if [[ $suite != bookworm && $kind != stock ]]; then
    echo "base.sh: --suite needs --stock; see --help" >&2
    exit 64
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
case "$kind" in
    node) name=base-node$node; needed=(mmdebstrap npm) ;;
    stock) name=stock-$suite; needed=(mmdebstrap) ;;
    no-glibc) name=no-glibc; needed=(apt-get dpkg-deb) ;;
esac
out=${out:-target/images/$name.tar}
[[ $(id -u) == 0 ]] || die "mmdebstrap needs root; run this with sudo"
for program in "${needed[@]}"; do
    command -v "$program" >/dev/null || die "\`$program\` is missing; install it and try again"
done
[[ -z $extra_ca || -s $extra_ca ]] || die "the bundle \`$extra_ca\` is missing or empty"

mkdir -p "$(dirname "$out")"
out=$(realpath "$out")
# Unpacking in memory is several times faster than on disk.
parent=$(dirname "$out")
if [[ -w /dev/shm ]] && (($(df --output=avail -k /dev/shm | tail -n 1) > 2000000)); then
    parent=/dev/shm
fi
work=$(mktemp -d "$parent/base.XXXXXX")
trap 'rm -rf "$work"' EXIT

# Packs Node.js, npm and the additional certificates into files.tar.
pack_node() {
    local platform files=$work/files
    case "$(dpkg --print-architecture)" in
        amd64) platform=linux-x64 ;;
        arm64) platform=linux-arm64 ;;
        *) die "unsupported architecture $(dpkg --print-architecture): no Node.js package" ;;
    esac
    mkdir -p "$files"/usr/local/bin "$files"/usr/local/lib/node_modules/npm "$work/node"
    (
        cd "$work"
        npm pack --silent "node-$platform@$node" "npm@$npm" >/dev/null
        tar -xzf "node-$platform"-*.tgz -C node --strip-components=1
        tar -xzf npm-*.tgz -C "$files/usr/local/lib/node_modules/npm" --strip-components=1
    )
    rm -rf "$files"/usr/local/lib/node_modules/npm/{docs,man}
    install -m 0755 "$work/node/bin/node" "$files/usr/local/bin/node"
    ln -s ../lib/node_modules/npm/bin/npm-cli.js "$files/usr/local/bin/npm"
    ln -s ../lib/node_modules/npm/bin/npx-cli.js "$files/usr/local/bin/npx"
    if [[ -n $extra_ca ]]; then
        install -D -m 0644 "$extra_ca" "$files/usr/local/share/extra-ca.pem"
    fi
    tar -C "$files" --owner=0 --group=0 --numeric-owner -cf "$work/files.tar" .
}

# Writes a root file system of Debian packages; arguments are options for mmdebstrap.
pack_debian() {
    local sources=/etc/apt/sources.list.d/debian.sources log=$work/mmdebstrap.log
    [[ -s $sources ]] || sources=/etc/apt/sources.list
    if [[ $kind == stock ]]; then
        local mirror
        mirror=$(grep -ohE 'https?://[^ ]*/debian/?( |$)' "$sources" | head -n 1)
        sources="deb ${mirror:-http://deb.debian.org/debian} $suite main"
    fi
    if ! TMPDIR=$work mmdebstrap --quiet --mode=root --format=tar "$@" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/info/*' \
        "$suite" "$out.part" "$sources" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "mmdebstrap failed"
    fi
}

# Writes a root file system with busybox and its links alone.
pack_busybox() {
    local root=$work/root
    mkdir -p "$root"/{bin,etc,root,workspace} "$work/package"
    install -d -m 1777 "$root/tmp"
    (
        cd "$work/package"
        # Fails without package lists.
        if ! apt-get download -qq busybox-static >apt.log 2>&1; then
            { apt-get update -qq && apt-get download -qq busybox-static; } >apt.log 2>&1 || { cat apt.log >&2; exit 1; }
        fi
        dpkg-deb --extract busybox-static_*.deb .
    ) || die "cannot download the Debian package busybox-static"
    install -m 0755 "$work"/package/bin/busybox "$root/bin/busybox"
    local applet
    for applet in $("$root/bin/busybox" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
    done
    echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    tar -C "$root" --owner=0 --group=0 --numeric-owner -cf "$out.part" .
}

case "$kind" in
    node)
        pack_node
        pack_debian --variant=minbase --customize-hook="tar-in $work/files.tar /"
        ;;
    # Without this hook bookworm gets all of Perl, for the package that moves /bin to /usr/bin.
    stock) pack_debian --variant=essential --hook-dir=/usr/share/mmdebstrap/hooks/maybe-merged-usr ;;
    no-glibc) pack_busybox ;;
esac
mv "$out.part" "$out"
echo "$out: $(($(stat -c %s "$out") / 1000000)) MB"
