#!/bin/sh
# Set this machine up for Skerry: Debian packages that are missing, and a virtual environment.
#
#   deploy/bootstrap.sh          to try it            (make up)       in .venv
#   deploy/bootstrap.sh dev      to test it, too      (make test)     in .venv
#   deploy/bootstrap.sh board    to be a node         (make install)  in /opt/skerry, commands in /usr/local/bin
#
# Quick and offline when everything is there.  A trial starts and enables no service of a package that is installed here:
# it runs its own, and leaves the machine's as they were.  A board uses the machine's containerd and mosquitto.
set -eu

cd "$(dirname "$0")/.."
kind=${1:-run}
venv=.venv
[ "$kind" != board ] || venv=${SKERRY_PREFIX:-/opt/skerry}
commands=${SKERRY_COMMANDS:-/usr/local/bin}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# Debian puts the tools of root where a user's PATH does not look.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if [ "$(id -u)" -eq 0 ]; then
    as_root() { "$@"; }
elif command -v sudo >/dev/null; then
    as_root() { sudo --preserve-env=SODIUM_INSTALL "$@"; }
else
    die "this needs root, and there is no sudo: run it again as root"
fi

# --- Debian packages ---------------------------------------------------------------------------------------------

missing=
also=
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
want iproute2 has ip
want iptables has iptables
want nftables has nft
want ca-certificates test -s /etc/ssl/certs/ca-certificates.crt
if [ "$kind" != board ]; then
    want busybox-static has_static_busybox
    want kubernetes-client has kubectl
elif ! grep -qs piwheels /etc/pip.conf; then
    # PyPI has no built msgspec and PyNaCl for 32-bit ARM; Raspberry Pi OS has an index that does.  PyNaCl 1.5 is the last that
    # works with Debian 12's libsodium; to build the one that later ones bring takes a small board very long.
    case $(uname -m) in
        armv*)
            also="PyNaCl<1.6"
            export SODIUM_INSTALL=system
            [ -x $venv/bin/python ] || missing="$missing gcc libc6-dev libffi-dev libsodium-dev python3-dev"
            ;;
    esac
fi
if [ "$kind" = dev ]; then
    # for the libraries that tests put between a daemon and its disk or clock
    want gcc has cc
    want libc6-dev test -e /usr/include/stdio.h
    # the second runtime that tests run pods under
    want crun has crun
fi

python=$(find_python)
if [ ! -x $venv/bin/python ]; then
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
    if [ "$kind" = board ]; then
        guard=
    elif [ ! -e $guard ]; then
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
    if [ "$kind" != board ] && has systemctl; then
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
if [ "$kind" = board ] && [ -d /run/systemd/system ]; then
    as_root systemctl enable -q --now containerd.service >&2
    case " $missing " in
        # One that was here before is the owner's; for one that was not, `skerry join` has a configuration with accounts.
        *" mosquitto "*) as_root systemctl disable -q --now mosquitto.service >&2 || true ;;
    esac
fi

# --- the virtual environment -------------------------------------------------------------------------------------

stamp=$venv/.skerry-$kind
wanted=$(sha256sum pyproject.toml | cut -d' ' -f1)
make_venv() { # "as_root" or nothing
    if [ ! -x $venv/bin/python ]; then
        python=$(find_python)
        [ -n "$python" ] || die "Python 3.11 or newer is needed, and there is none: install python3.11"
        say "making $venv with $python"
        "$@" "$python" -m venv $venv
    fi
    say "installing Skerry into $venv"
    # Dependency groups need pip 25.1; Debian 12 has 23.0.
    "$@" $venv/bin/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
}
if [ "$kind" = board ]; then
    # Beside what runs, and in its place when it is whole: a power cut in between must not cost the board its daemon.
    folder=$venv
    as_root deploy/replace.sh begin "$folder"
    venv=$folder.new
    make_venv as_root
    # What an earlier build left here would be installed, too.
    as_root rm -rf build
    as_root $venv/bin/python -m pip install -qq --disable-pip-version-check --upgrade ".[${SKERRY_EXTRAS:-board}]" ${also:+"$also"}
    as_root rm -rf build ./*.egg-info
    as_root deploy/replace.sh end "$folder" edgecore mapper
    for command in skerry edgecore mapper; do
        as_root ln -sf "$folder/bin/$command" "$commands/$command"
    done
    # Pods run on while it restarts.
    for service in edgecore skerry-supervisor; do
        if [ -d /run/systemd/system ] && systemctl is-active -q $service.service; then
            if ! as_root systemctl restart $service.service >&2 && [ -e "$folder.old" ]; then
                as_root deploy/replace.sh back "$folder"
                as_root systemctl restart $service.service >&2 || true
                die "the new $service does not start, and the one before runs again: see journalctl -u $service"
            fi
        fi
    done
elif [ ! -x $venv/bin/python ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    make_venv
    if [ "$kind" = dev ]; then
        .venv/bin/python -m pip install -qq --disable-pip-version-check -e '.[all]' --group dev
        printf '%s\n' "$wanted" >.venv/.skerry-run # it holds all that running needs, too
    else
        .venv/bin/python -m pip install -qq --disable-pip-version-check -e '.[all]'
    fi
    printf '%s\n' "$wanted" >"$stamp"
fi
