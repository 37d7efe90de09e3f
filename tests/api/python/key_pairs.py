"""Key pairs: create, import, describe, delete."""

import base64
import hashlib
import re
import subprocess
import tempfile

from harness import case, client, dry, equal, filters, main, name, refused, specification, tags

ec2 = client()


def generated(kind):
    """A key made by OpenSSH: its public line and its folder."""
    folder = tempfile.mkdtemp(dir=".")
    file = f"{folder}/key"
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "me@here", "-f", file], check=True
    )
    with open(f"{file}.pub", encoding="ascii") as public:
        return public.read().strip(), file


def der(file, *options):
    return subprocess.run(
        ["openssl", *options, "-in", file, "-outform", "DER"], check=True, capture_output=True
    ).stdout


def colons(digest):
    return ":".join(f"{byte:02x}" for byte in digest)


@case
def create_rsa():
    key = name("key")
    made = ec2.create_key_pair(KeyName=key)
    equal(made["KeyName"], key)
    assert re.fullmatch(r"key-[0-9a-f]{17}", made["KeyPairId"]), made["KeyPairId"]
    assert made["KeyMaterial"].startswith("-----BEGIN RSA PRIVATE KEY-----\n"), "no PEM"
    with open(key, "w", encoding="ascii", opener=private) as file:
        file.write(made["KeyMaterial"])
    # For RSA keys that EC2 makes: SHA-1 of the private key as PKCS #8 DER.
    pkcs8 = der(key, "pkcs8", "-topk8", "-nocrypt")
    equal(made["KeyFingerprint"], colons(hashlib.sha1(pkcs8).digest()), "the fingerprint")
    (found,) = ec2.describe_key_pairs(KeyNames=[key], IncludePublicKey=True)["KeyPairs"]
    equal(found["KeyType"], "rsa")
    equal(found["KeyFingerprint"], made["KeyFingerprint"])
    public = subprocess.run(
        ["ssh-keygen", "-y", "-f", key], check=True, capture_output=True, text=True
    ).stdout
    equal(found["PublicKey"].split()[:2], public.split()[:2], "the public key")
    assert "KeyMaterial" not in found, "the private key was kept"
    ec2.delete_key_pair(KeyName=key)


def private(path, flags):
    import os

    return os.open(path, flags, 0o600)


@case
def create_ed25519():
    key = name("key")
    made = ec2.create_key_pair(KeyName=key, KeyType="ed25519", KeyFormat="pem")
    assert made["KeyMaterial"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n"), "no PEM"
    with open(key, "w", encoding="ascii", opener=private) as file:
        file.write(made["KeyMaterial"])
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", key], check=True, capture_output=True, text=True
    ).stdout
    wanted = made["KeyFingerprint"].rstrip("=").removeprefix("SHA256:")
    assert f"SHA256:{wanted} " in shown, f"{shown!r}, told was {made['KeyFingerprint']}"
    ec2.delete_key_pair(KeyName=key)


@case
def same_name_twice():
    key = name("key")
    ec2.create_key_pair(KeyName=key, KeyType="ed25519")
    with refused("InvalidKeyPair.Duplicate", key):
        ec2.create_key_pair(KeyName=key, KeyType="ed25519")
    public, _ = generated("ed25519")
    with refused("InvalidKeyPair.Duplicate", key):
        ec2.import_key_pair(KeyName=key, PublicKeyMaterial=public.encode())
    ec2.delete_key_pair(KeyName=key)


@case
def import_rsa():
    key = name("key")
    public, file = generated("rsa")
    made = ec2.import_key_pair(
        KeyName=key,
        PublicKeyMaterial=public.encode(),
        TagSpecifications=specification("key-pair", team="a"),
    )
    # For imported RSA keys: MD5 of the public key as DER.
    subprocess.run(["ssh-keygen", "-q", "-p", "-N", "", "-m", "PEM", "-f", file], check=True)
    spki = der(file, "rsa", "-pubout")
    equal(made["KeyFingerprint"], colons(hashlib.md5(spki).digest()), "the fingerprint")
    equal(tags(made), {"team": "a"})
    ec2.delete_key_pair(KeyPairId=made["KeyPairId"])
    with refused("InvalidKeyPair.NotFound"):
        ec2.describe_key_pairs(KeyNames=[key])


@case
def import_ed25519():
    key = name("key")
    public, _ = generated("ed25519")
    made = ec2.import_key_pair(KeyName=key, PublicKeyMaterial=public.encode())
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    wanted = base64.b64encode(digest).decode()
    equal(made["KeyFingerprint"].rstrip("="), wanted.rstrip("="), "the fingerprint")
    (found,) = ec2.describe_key_pairs(KeyNames=[key], IncludePublicKey=True)["KeyPairs"]
    equal(found["KeyType"], "ed25519")
    equal(found["PublicKey"].split()[1], public.split()[1])
    ec2.delete_key_pair(KeyName=key)


@case
def import_of_rubbish():
    with refused("InvalidKey.Format"):
        ec2.import_key_pair(KeyName=name("key"), PublicKeyMaterial=b"rubbish")


@case
def describe():
    first, second = name("keya"), name("keyb")
    marked = ec2.create_key_pair(
        KeyName=first,
        KeyType="ed25519",
        TagSpecifications=specification("key-pair", run=first),
    )
    equal(tags(marked), {"run": first})
    ec2.create_key_pair(KeyName=second, KeyType="ed25519")

    def names(**arguments):
        found = ec2.describe_key_pairs(**arguments)["KeyPairs"]
        return {key["KeyName"] for key in found}

    assert {first, second} <= names()
    equal(names(KeyNames=[first]), {first})
    equal(names(KeyPairIds=[marked["KeyPairId"]]), {first})
    equal(names(Filters=filters(key_name=[first, second])), {first, second})
    equal(names(Filters=filters(key_name=first[:-3] + "*")), {first})
    equal(names(Filters=filters(key_pair_id=marked["KeyPairId"])), {first})
    equal(names(Filters=filters(fingerprint=marked["KeyFingerprint"])), {first})
    equal(names(Filters=filters(tag_run=first)), {first})
    equal(names(Filters=filters(key_name="none-" + first)), set())
    (plain,) = ec2.describe_key_pairs(KeyNames=[second])["KeyPairs"]
    equal(plain["Tags"], [], "the tags of a key without")
    assert "PublicKey" not in plain, "the public key was not asked for"
    with refused("InvalidParameterValue", "colour"):
        ec2.describe_key_pairs(Filters=filters(colour="red"))
    with refused("InvalidKeyPair.NotFound", "none"):
        ec2.describe_key_pairs(KeyNames=[first, "none"])
    with refused("InvalidKeyPair.NotFound"):
        ec2.describe_key_pairs(KeyPairIds=["key-0123456789abcdef0"])
    for key in [first, second]:
        ec2.delete_key_pair(KeyName=key)


@case
def waiter():
    key = name("key")
    ec2.create_key_pair(KeyName=key, KeyType="ed25519")
    ec2.get_waiter("key_pair_exists").wait(KeyNames=[key])
    ec2.delete_key_pair(KeyName=key)


@case
def delete_what_is_not_there():
    # EC2 has always answered success here.
    answer = ec2.delete_key_pair(KeyName=name("none"))
    equal(answer["ResponseMetadata"]["HTTPStatusCode"], 200)


@case
def dry_runs_change_nothing():
    key = name("key")
    dry(ec2.create_key_pair, KeyName=key)
    dry(ec2.describe_key_pairs)
    with refused("InvalidKeyPair.NotFound"):
        ec2.describe_key_pairs(KeyNames=[key])
    ec2.create_key_pair(KeyName=key, KeyType="ed25519")
    dry(ec2.delete_key_pair, KeyName=key)
    equal(len(ec2.describe_key_pairs(KeyNames=[key])["KeyPairs"]), 1)
    with refused("InvalidKeyPair.Duplicate"):
        ec2.create_key_pair(KeyName=key, KeyType="ed25519", DryRun=True)
    ec2.delete_key_pair(KeyName=key)


@case
def wrong_parameters():
    with refused("MissingParameter", "KeyName"):
        ec2.create_key_pair()
    with refused("InvalidParameterValue"):
        ec2.create_key_pair(KeyName=name("key"), KeyType="dsa")
    with refused("MissingParameter"):
        ec2.delete_key_pair()


main()
