#!/bin/sh
# Installs, on Debian or Ubuntu, what Larder is compared with. As root; does nothing where all of it is there.
set -eu
PATH="$PATH:/usr/sbin:/sbin"
missing=
command -v docker-registry >/dev/null || missing="$missing docker-registry"
command -v nginx >/dev/null || missing="$missing nginx-light"
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "as root: apt-get install$missing" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 # a list of words
apt-get install -qq --yes --no-install-recommends $missing >/dev/null
# Debian starts what it installs; the comparison starts its own.
if [ -d /run/systemd/system ]; then
    for package in $missing; do
        systemctl disable --now "${package%-light}.service" >/dev/null 2>&1 || true
    done
fi
