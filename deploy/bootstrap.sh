#!/bin/sh
# Set this machine up for Skerry: Debian packages that are missing, and a virtual environment in .venv.
#
#   deploy/bootstrap.sh          to run it            (make up)
#   deploy/bootstrap.sh dev      to test it, too      (make test)
#
# Quick and offline when everything is there.  No service of a package that is installed here is started or enabled:
# Skerry runs its own, and leaves the machine's as they were.
set -eu

cd "$(dirname "$0")/.."
kind=${1:-run}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Debian puts the tools of root where a user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if [ "$(id -u)" -eq 0 ]; then
    as_root() { "$@"; }
elif command -v sudo >/dev/null; then
    as_root() { sudo "$@"; }
else
    die "this needs root, and there is no sudo: run it again as root"
fi

# --- Debian packages ---------------------------------------------------------------------------------------------

missing=
want() { # package, then a test that it is there
    package=$1
    shift
    "$@" || missing="$missing $package"
}
has() { command -v "$1" >/dev/null 2>&1; }
has_cni() { [ -x /usr/lib/cni/bridge ] || [ -x /opt/cni/bin/bridge ]; }
# A program that is not static names its loader near its beginning.
has_static_busybox() { has busybox && ! head -c 4096 "$(command -v busybox)" | grep -q ld-linux; }

find_python() {
    for candidate in python3.11 python3 python3.13 python3.12; do
        if has "$candidate" && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
}

want containerd has containerd
want runc has runc
want containernetworking-plugins has_cni
want mosquitto has mosquitto
want busybox-static has_static_busybox
want iproute2 has ip
want iptables has iptables
want nftables has nft
want ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
has kubectl || missing="$missing kubernetes-client"
if [ "$kind" = dev ]; then
    # for the libraries that tests put between a daemon and its disk or clock
    want gcc has cc
    want libc6-dev test -e /usr/include/stdio.h
fi

python=$(find_python)
if [ ! -x .venv/bin/python ]; then
    if [ -z "$python" ]; then
        missing="$missing python3 python3-venv"
    elif ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        [ "$(readlink -f "$python")" = "$(readlink -f /usr/bin/python3 2>/dev/null)" ] ||
            die "$python cannot make virtual environments (it lacks ensurepip): install its venv module"
        missing="$missing python3-venv"
    fi
fi

install_packages() {
    has apt-get || die "these packages are missing and this is no Debian to install them on:$missing"
    say "installing$missing"
    guard=/usr/sbin/policy-rc.d
    if [ ! -e $guard ]; then
        # Asked by Debian's packages before they start a service; 101 is no.
        trap 'as_root rm -f $guard' EXIT INT TERM
        printf '#!/bin/sh\nexit 101\n' | as_root tee $guard >/dev/null
        as_root chmod 755 $guard
    else
        guard=
    fi
    # shellcheck disable=SC2086 # a list of words
    {
        as_root apt-get -q update &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $missing
    } >&2 || die "apt-get could not install$missing: see above"
    if has systemctl; then
        # What was not there before must not start at the next boot either.
        for service in containerd mosquitto; do
            case " $missing " in *" $service "*) as_root systemctl disable -q $service.service >&2 || true ;; esac
        done
    fi
    if [ -n "$guard" ]; then
        as_root rm -f $guard
        trap - EXIT INT TERM
    fi
}

if [ -n "$missing" ]; then
    install_packages
fi

# --- the virtual environment -------------------------------------------------------------------------------------

stamp=.venv/.skerry-$kind
wanted=$(sha256sum pyproject.toml | cut -d' ' -f1)
if [ ! -x .venv/bin/python ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    if [ ! -x .venv/bin/python ]; then
        python=$(find_python)
        [ -n "$python" ] || die "Python 3.11 or newer is needed, and there is none: install python3.11"
        say "making .venv with $python"
        "$python" -m venv .venv
    fi
    say "installing Skerry into .venv"
    # Dependency groups need pip 25.1; Debian 12 has 23.0.
    .venv/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
    if [ "$kind" = dev ]; then
        .venv/bin/python -m pip install -qq --disable-pip-version-check -e '.[all]' --group dev
        printf '%s\n' "$wanted" >.venv/.skerry-run # it holds all that running needs, too
    else
        .venv/bin/python -m pip install -qq --disable-pip-version-check -e '.[all]'
    fi
    printf '%s\n' "$wanted" >"$stamp"
fi
