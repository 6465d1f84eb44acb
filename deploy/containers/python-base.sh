#!/bin/sh
# Make a stand-in for the image python:VERSION-slim-bookworm: Debian 12 with its own Python 3.11, as a tar archive. It
# trusts the certificates that this machine trusts. Usage, as root: deploy/containers/python-base.sh ARCHIVE
set -eu
archive=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
debootstrap --variant=minbase --include=ca-certificates,curl,libpython3.11,python3-pip,python3.11,python3.11-venv \
    bookworm "$root" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    exit 1
}
ln -sf python3.11 "$root/usr/bin/python"
rm "$root/usr/lib/python3.11/EXTERNALLY-MANAGED" # pip may install here, as in Python's own image
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
# What slim images leave out as well.
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* "$root"/usr/share/doc/* \
    "$root"/usr/share/man/* "$root"/usr/share/locale/*
find "$root" -name __pycache__ -prune -exec rm -rf {} +
mkdir -p "$(dirname "$archive")"
tar -C "$root" -cf "$archive.partial" .
mv "$archive.partial" "$archive"
