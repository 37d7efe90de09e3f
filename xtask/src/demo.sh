#!/bin/sh
# User data of `cargo xtask demo`. cloud-init runs it once, as root, at the first boot of an instance, as on EC2.
set -eu
mkdir -p /srv/demo
python3 - > /srv/demo/index.html <<'PYTHON'
import platform, urllib.request

SERVICE = "http://169.254.169.254/latest/"

def ask(path, method="GET", **headers):
    request = urllib.request.Request(SERVICE + path, method=method, headers=headers)
    return urllib.request.urlopen(request, timeout=60).read().decode()

token = ask("api/token", "PUT", **{"X-aws-ec2-metadata-token-ttl-seconds": "300"})

def metadata(name):
    return ask("meta-data/" + name, **{"X-aws-ec2-metadata-token": token})

print("<!doctype html><title>cumulet</title>")
print("<h1>Hello from", metadata("instance-id") + "</h1>")
for name in ("ami-id", "instance-type", "local-hostname", "local-ipv4", "placement/availability-zone"):
    print(f"<p>{name}: {metadata(name)}</p>")
print(f"<p>kernel: {platform.release()}</p>")
PYTHON
systemd-run --unit=demo-page python3 -m http.server --directory /srv/demo 80
