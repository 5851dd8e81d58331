#!/bin/sh
# Installs, on Debian or Ubuntu, what building needs (a C compiler) and the real clients that the tests drive. As root.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --yes --no-install-recommends \
    build-essential ca-certificates \
    apache2-utils buildah busybox-static chromium conmon containerd crun curl docker.io docker-registry fonts-dejavu-core iptables nginx-light openssl podman \
    prometheus runc skopeo systemd systemd-container tinyproxy uidmap >/dev/null
# From Debian 13 on the client is a package of its own.
apt-get install -qq --yes --no-install-recommends docker-cli >/dev/null 2>&1 || true
# For the Kubernetes manifests; where kubectl came from elsewhere, it stays.
command -v kubectl >/dev/null || apt-get install -qq --yes --no-install-recommends kubernetes-client >/dev/null
# Debian starts what it installs; the tests start their own, and a port or a socket in use would be in their way.
if [ -d /run/systemd/system ]; then
    systemctl disable --now docker-registry.service nginx.service prometheus.service tinyproxy.service >/dev/null 2>&1 || true
fi
