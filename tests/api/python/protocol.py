"""What holds for every request: signatures, versions, unknown actions and parameters, GET, STS."""

import os
import urllib.error
import urllib.parse
import urllib.request
import xml.etree.ElementTree as tree

import botocore.auth
import botocore.awsrequest
import botocore.credentials

from harness import ACCOUNT, REGION, case, client, equal, main, refused

ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
NAMESPACE = "{http://ec2.amazonaws.com/doc/2016-11-15/}"
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def keys(secret=None):
    return botocore.credentials.Credentials(
        os.environ["AWS_ACCESS_KEY_ID"], secret or os.environ["AWS_SECRET_ACCESS_KEY"]
    )


def send(fields, method="POST", sign=botocore.auth.SigV4Auth, region=REGION, spoil=None):
    """One request made by hand: status and document."""
    text = urllib.parse.urlencode({"Version": "2016-11-15", **fields})
    url, body = ENDPOINT + "/", text
    if method == "GET":
        url, body = f"{url}?{text}", ""
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    if method == "GET":
        headers = {}
    request = botocore.awsrequest.AWSRequest(method, url, headers, data=body)
    if sign:
        sign(keys(), "ec2", region).add_auth(request)
    if spoil:
        spoil(request)
    ready = request.prepare()
    data = ready.body.encode() if isinstance(ready.body, str) else ready.body
    plain = urllib.request.Request(
        ready.url, data if method == "POST" else None, dict(ready.headers.items()), method=method
    )
    try:
        with OPENER.open(plain, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def code(answer):
    """Status and code of an error document, which must have EC2's form."""
    status, document = answer
    root = tree.fromstring(document)
    equal(root.tag, "Response", "the root element")
    assert root.findtext("RequestID"), "no RequestID"
    assert root.findtext("Errors/Error/Message"), "no message"
    return status, root.findtext("Errors/Error/Code")


@case
def an_answer_has_ec2s_form():
    status, document = send({"Action": "DescribeKeyPairs"})
    equal(status, 200, document)
    root = tree.fromstring(document)
    equal(root.tag, NAMESPACE + "DescribeKeyPairsResponse")
    assert root.findtext(NAMESPACE + "requestId"), "no requestId"
    assert root.find(NAMESPACE + "keySet") is not None, "an empty list is written"


@case
def get_is_taken_too():
    status, document = send({"Action": "DescribeKeyPairs"}, method="GET")
    equal(status, 200, document)


@case
def a_presigned_url_is_taken():
    status, document = send(
        {"Action": "DescribeKeyPairs"}, method="GET", sign=botocore.auth.SigV4QueryAuth
    )
    equal(status, 200, document)


@case
def wrong_secret():
    bad = client(aws_access_key_id=os.environ["AWS_ACCESS_KEY_ID"], aws_secret_access_key="x" * 40)
    with refused("SignatureDoesNotMatch"):
        bad.describe_key_pairs()


@case
def unknown_key():
    bad = client(aws_access_key_id="AKIAXXXXXXXXXXXXXXXX", aws_secret_access_key="x" * 40)
    with refused("AuthFailure"):
        bad.describe_key_pairs()


@case
def no_signature():
    equal(code(send({"Action": "DescribeKeyPairs"}, sign=None))[1], "MissingAuthenticationToken")


@case
def changed_body():
    def spoil(request):
        request.data = request.data.replace("DescribeKeyPairs", "DescribeKeyPairz")

    equal(code(send({"Action": "DescribeKeyPairs"}, spoil=spoil)), (403, "SignatureDoesNotMatch"))


@case
def unknown_action():
    equal(code(send({"Action": "DescribeUnicorns"})), (400, "InvalidAction"))


@case
def an_action_of_ec2_that_is_not_here():
    equal(code(send({"Action": "CreateVerifiedAccessGroup"})), (400, "UnsupportedOperation"))


@case
def unknown_parameter():
    answer = send({"Action": "DescribeKeyPairs", "Colour": "red"})
    equal(code(answer), (400, "UnknownParameter"))
    assert b"Colour" in answer[1], answer[1]


@case
def no_action():
    equal(code(send({}))[1], "MissingAction")


@case
def dry_run_is_status_412():
    equal(code(send({"Action": "DescribeKeyPairs", "DryRun": "true"})), (412, "DryRunOperation"))


@case
def regions_are_apart():
    other = "eu-west-1" if REGION != "eu-west-1" else "us-east-1"
    here, there = client(), client(region=other)
    here.create_key_pair(KeyName="apart", KeyType="ed25519")
    with refused("InvalidKeyPair.NotFound"):
        there.describe_key_pairs(KeyNames=["apart"])
    here.delete_key_pair(KeyName="apart")


@case
def caller_identity():
    who = client("sts").get_caller_identity()
    equal(who["Account"], ACCOUNT)
    assert who["Arn"].startswith("arn:aws:iam::" + ACCOUNT), who["Arn"]
    assert who["UserId"], "no user id"


@case
def request_ids_differ():
    ids = {client().describe_key_pairs()["ResponseMetadata"]["RequestId"] for _ in range(3)}
    equal(len(ids), 3)


main()
