"""`cargo xtask bench api`: DescribeInstances of 1,000 instances, ours and moto_server's, in turn on one machine.

Both are asked by the same bare HTTP client with one signed request over and over, so that no SDK's parsing hides the servers' own time.
"""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

INSTANCES = 1000
IMAGE = "ami-0cb00000000000001"
ROUNDS = 5
# Of about equal duration.
REQUESTS = {"cumulet": 40, "moto_server": 2}


def client(endpoint, key="test", secret="test"):
    config = Config(retries={"max_attempts": 0}, read_timeout=600)
    return boto3.client(
        "ec2",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        config=config,
    )


def cumulet(program, home):
    args = [program, "--home", home, "--output", "json", "serve", "--backend", "simulated", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    hello = json.loads(process.stdout.readline())
    return process, client(hello["endpoint"], hello["access_key_id"], hello["secret_access_key"])


def moto():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = [sys.executable, "-m", "moto.server", "-p", str(port)]
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    return process, client(f"http://127.0.0.1:{port}")


def launch(ec2, image, count, there=0):
    """Seconds from the request until all of them run, beside those that are there."""
    begin = time.monotonic()
    ec2.run_instances(ImageId=image, InstanceType="t3.micro", MinCount=count, MaxCount=count)
    filters = [{"Name": "instance-state-name", "Values": ["running"]}]
    while True:
        pages = ec2.get_paginator("describe_instances").paginate(Filters=filters)
        if sum(len(r["Instances"]) for page in pages for r in page["Reservations"]) == there + count:
            return time.monotonic() - begin
        time.sleep(0.005)


def ask(ec2, times):
    """Seconds of each of so many requests, one after the other on one connection."""
    sent = []
    ec2.meta.events.register_last("before-send.ec2.DescribeInstances", lambda request, **_: sent.append(request))
    ec2.describe_instances()
    url, headers, body = urlsplit(sent[0].url), dict(sent[0].headers), sent[0].body
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
    taken = []
    for _ in range(times):
        begin = time.monotonic()
        connection.request("POST", "/", body, headers)
        answer = connection.getresponse()
        said = answer.read()
        taken.append(time.monotonic() - begin)
        assert answer.status == 200, said[:500]
        assert said.count(b"<instanceId>") >= INSTANCES, said[:500]
    connection.close()
    return taken


def memory(process):
    with open(f"/proc/{process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def main():
    with tempfile.TemporaryDirectory() as home:
        servers = {"cumulet": cumulet(sys.argv[1], home), "moto_server": moto()}
        try:
            images = {
                "cumulet": IMAGE,
                "moto_server": servers["moto_server"][1].describe_images(Owners=["amazon"])["Images"][0]["ImageId"],
            }
            taken = {name: [] for name in servers}
            hundred = launch(servers["cumulet"][1], IMAGE, 100)
            for name, (_, ec2) in servers.items():
                there = 100 if name == "cumulet" else 0
                launch(ec2, images[name], INSTANCES - there, there)
                print(f"bench api: {name} has {INSTANCES} instances", file=sys.stderr)
            for number in range(ROUNDS + 1):
                for name, (_, ec2) in servers.items():
                    seconds = ask(ec2, REQUESTS[name])
                    if number:
                        taken[name] += seconds
            print("| server | requests/s | ratio | median ms | p99 ms | RSS MiB |")
            print("|---|---|---|---|---|---|")
            rates = {name: len(all) / sum(all) for name, all in taken.items()}
            for name, all in taken.items():
                print(
                    f"| {name} | {rates[name]:.1f} | {rates[name] / rates['moto_server']:.1f} "
                    f"| {percentile(all, 0.5) * 1e3:.1f} | {percentile(all, 0.99) * 1e3:.1f} "
                    f"| {memory(servers[name][0]) / 1024:.0f} |"
                )
            print(f"\nRunInstances of 100 until all run: {hundred * 1e3:.0f} ms")
        finally:
            for process, _ in servers.values():
                process.send_signal(signal.SIGTERM)
                process.wait()


if __name__ == "__main__":
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    main()
