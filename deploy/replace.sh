#!/bin/sh
# Bring a virtual environment up to date beside itself, so that it is the old one or the new one whenever the power goes.
#
#   deploy/replace.sh begin FOLDER            make FOLDER.new, a copy of FOLDER if there is one; what is installed goes in there
#   deploy/replace.sh end FOLDER PROGRAM...   if each program in FOLDER.new/bin runs, it takes the place of FOLDER, which becomes
#                                             FOLDER.old
#   deploy/replace.sh back FOLDER             FOLDER.old and FOLDER change places
set -eu

verb=$1
folder=$2
shift 2
new=$folder.new
old=$folder.old

die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Two folders change places in one step (renameat2(2) with RENAME_EXCHANGE; coreutils has it from 9.5 on).
exchange='
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
here, one, other = -100, *(os.fsencode(name) for name in sys.argv[1:])
if libc.renameat2(here, one, here, other, 2):
    sys.exit(f"cannot exchange {sys.argv[1]} and {sys.argv[2]}: {os.strerror(ctypes.get_errno())}")
'
change_places() { # a folder with a python, and another
    "$1/bin/python" -c "$exchange" "$1" "$2" 2>/dev/null && return
    # a file system that cannot: for a moment there is none
    mv -T "$2" "$2.swap"
    mv -T "$1" "$2"
    mv -T "$2.swap" "$1"
}

case $verb in
    begin)
        rm -rf "$new"
        # what a cut in the moment without a folder left
        if [ ! -e "$folder" ] && [ -e "$folder.swap" ]; then mv -T "$folder.swap" "$folder"; fi
        if [ -e "$folder" ]; then cp -a --reflink=auto "$folder" "$new"; fi
        ;;
    end)
        for program in "$@"; do
            "$new/bin/$program" --version >/dev/null || die "$new/bin/$program does not run; $folder is as it was"
        done
        # programs that were installed there name the python that is there
        for program in "$new"/bin/*; do
            if [ -f "$program" ] && [ ! -L "$program" ] && head -c 1024 "$program" | grep -q "^#!$new/"; then
                sed -i "1s|^#!$new/|#!$folder/|" "$program"
            fi
        done
        sync
        if [ -e "$folder" ]; then
            rm -rf "$old"
            change_places "$new" "$folder"
            mv -T "$new" "$old"
        else
            mv -T "$new" "$folder"
        fi
        sync
        ;;
    back)
        [ -e "$old" ] || die "there is no $old to go back to"
        change_places "$old" "$folder"
        sync
        ;;
    *) die "begin, end or back, not $verb" ;;
esac
