# shellcheck shell=bash
# Functions that the scripts share. Source it from a script in this folder; it enters the repository's root.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Where cargo puts what it builds.
# shellcheck disable=SC2034
target=${CARGO_TARGET_DIR:-target}

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "needs root to run: $* (become root, or install sudo)"
    fi
}

# Finds a file by its path, and a program also where Debian keeps it out of an ordinary user's PATH.
have_program() {
    [ -e "$1" ] || have "$1" || [ -x "/usr/sbin/$1" ] || compgen -G "/usr/lib/postgresql/*/bin/$1" >/dev/null
}

# need PROGRAM=PACKAGE...: installs the Debian packages of the programs (or files) that are missing; silent when none is.
need() {
    local pair missing=()
    for pair; do
        have_program "${pair%%=*}" || missing+=("${pair##*=}")
    done
    [ ${#missing[@]} != 0 ] || return 0
    have apt-get || die "missing: ${missing[*]} (Debian's names; this machine has no apt-get)"
    say "Installing: ${missing[*]}"
    keep_default_cluster_away
    local log
    log=$(mktemp)
    if ! { as_root apt-get -q update && as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -q install -y --no-install-recommends -o Dpkg::Options::=--force-confold "${missing[@]}"; } \
        >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        die "apt-get could not install: ${missing[*]} (whole output: $log)"
    fi
    rm -f "$log"
    for pair; do
        have_program "${pair%%=*}" || die "${pair##*=} is installed and brought no ${pair%%=*}"
    done
}

# Debian's package would make and start a cluster of its own; nothing here uses it.
keep_default_cluster_away() {
    local conf=/etc/postgresql-common/createcluster.conf
    [ -e $conf ] || { as_root mkdir -p ${conf%/*} && as_root sh -c "echo 'create_main_cluster = false' >$conf"; }
}

need_rust() {
    have cargo || die "needs Rust 1.88 or newer: https://rustup.rs"
    # What rustc links with.
    need cc=gcc /usr/include/stdio.h=libc6-dev
}

# What the tests run against.
need_for_tests() {
    need_rust
    need initdb=postgresql psql=postgresql-client nginx=nginx haproxy=haproxy curl=curl wrk=wrk python3=python3 ps=procps
    # Debian keeps them where only root looks.
    PATH=$PATH:/usr/sbin:/sbin
}

# step TEXT COMMAND...: runs quietly; a failure shows the command's output and ends the script.
step() {
    local text=$1 log code began=$SECONDS
    shift
    log=$(mktemp)
    # Not within a condition: there a function would go on after a command of its own has failed.
    set +e
    (
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null
    code=$?
    set -e
    if [ $code = 0 ]; then
        say "ok    $text ($((SECONDS - began)) s)"
        # A step that could do nothing here says so.
        grep '^skipped' "$log" || true
    else
        say "FAIL  $text"
        cat "$log"
    fi
    rm -f "$log"
    [ $code = 0 ] || exit 1
}

# What tests said that they could not show here: a skipped test counts as passed.
skipped() {
    local report=${CARGO_TARGET_DIR:-target}/nextest/default/junit.xml
    [ ! -e "$report" ] || grep -oh 'skipped: [^<&]*' "$report" | sort | uniq -c || true
}

# Builds and runs every test; the runner's summary, and what was skipped, is the last thing printed.
run_tests() {
    # Programs that tests start stand beside them in the target folder.
    step "build" cargo build --locked --workspace --all-targets
    if have cargo-nextest; then
        step "examples in the documentation" cargo test --locked --workspace --doc
        local code=0
        cargo nextest run --locked --workspace --no-fail-fast "$@" || code=$?
        skipped
        return $code
    else
        cargo test --locked --workspace --no-fail-fast "$@"
    fi
}
