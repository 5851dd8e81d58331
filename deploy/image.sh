#!/bin/sh
# Makes the image of deploy/Dockerfile from a static binary, without an engine: an OCI layout that `docker load` and
# `podman load` take, too. The same binary and the same SOURCE_DATE_EPOCH make the same bytes.
#
#   RUSTFLAGS='-C target-feature=+crt-static -C strip=symbols' cargo build --locked --release --target x86_64-unknown-linux-gnu
#   deploy/image.sh target/x86_64-unknown-linux-gnu/release/larder larder.tar && docker load -i larder.tar
set -eu
[ $# -ge 2 ] || { echo "use: $0 BINARY OUT.tar [NAME:TAG]" >&2; exit 2; }
binary=$1 out=$2 name=${3:-larder:latest}
epoch=${SOURCE_DATE_EPOCH:-$(git -C "$(dirname "$0")" log -1 --format=%ct 2>/dev/null || echo 0)}
case $(uname -m) in
x86_64) architecture=amd64 ;;
aarch64) architecture=arm64 ;;
*) architecture=$(uname -m) ;;
esac
ca=${CA_CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A tar that knows neither who made it nor when.
pack() { tar --format=ustar --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner -C "$1" -cf "$2" "$3"; }
sum() { sha256sum "$1" | cut -d' ' -f1; }
size() { stat -c %s "$1"; }

mkdir -p "$work/root/etc/ssl/certs" "$work/root/var/lib" "$work/layout/blobs/sha256"
install -m 0755 "$binary" "$work/root/larder"
install -m 0644 "$ca" "$work/root/etc/ssl/certs/ca-certificates.crt"
find "$work/root" -type d -exec chmod 0755 {} +
pack "$work/root" "$work/layer.tar" .
# Its data directory belongs to the user that it runs as.
mkdir -p "$work/data/var/lib/larder"
chmod 0755 "$work/data/var" "$work/data/var/lib"
chmod 0700 "$work/data/var/lib/larder"
tar --format=ustar --mtime="@$epoch" --owner=65532 --group=65532 --numeric-owner -C "$work/data" -rf "$work/layer.tar" ./var/lib/larder
diff_id=$(sum "$work/layer.tar")
gzip -n -9 "$work/layer.tar"
layer=$(sum "$work/layer.tar.gz") layer_size=$(size "$work/layer.tar.gz")
mv "$work/layer.tar.gz" "$work/layout/blobs/sha256/$layer"

created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
cat >"$work/config" <<END
{"created":"$created","architecture":"$architecture","os":"linux","config":{"User":"65532:65532","ExposedPorts":{"5000/tcp":{},"5080/tcp":{}},"Env":["LARDER_DATA_DIR=/var/lib/larder","LARDER_MIRROR_LISTEN=0.0.0.0:5000","LARDER_ADMIN_LISTEN=0.0.0.0:5080"],"Entrypoint":["/larder"],"Cmd":["serve"],"Volumes":{"/var/lib/larder":{}},"Labels":{"org.opencontainers.image.title":"larder","org.opencontainers.image.licenses":"Apache-2.0"},"StopSignal":"SIGTERM"},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]},"history":[{"created":"$created","created_by":"deploy/image.sh"}]}
END
config=$(sum "$work/config") config_size=$(size "$work/config")
mv "$work/config" "$work/layout/blobs/sha256/$config"
cat >"$work/manifest" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
END
manifest=$(sum "$work/manifest") manifest_size=$(size "$work/manifest")
mv "$work/manifest" "$work/layout/blobs/sha256/$manifest"
cat >"$work/layout/index.json" <<END
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,"annotations":{"io.containerd.image.name":"docker.io/library/$name","org.opencontainers.image.ref.name":"${name##*:}"},"platform":{"architecture":"$architecture","os":"linux"}}]}
END
echo '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
# What engines before OCI layouts look for.
echo "[{\"Config\":\"blobs/sha256/$config\",\"RepoTags\":[\"$name\"],\"Layers\":[\"blobs/sha256/$layer\"]}]" >"$work/layout/manifest.json"
find "$work/layout" -exec chmod u=rwX,go=rX {} +
pack "$work/layout" "$out" .
echo "sha256:$manifest"
