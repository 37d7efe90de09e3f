//! Signatures made by botocore 1.44.5 on 2026-11-21T18:27:33Z, and what must not pass for one.

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use time::macros::datetime;

use super::*;
use crate::api::credentials::AccessKey;

const NOW: OffsetDateTime = datetime!(2026-11-21 18:27:33 UTC);
const ID: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const POST_BODY: &str =
    "Action=DescribeRegions&Version=2016-11-15&Filter.1.Name=region-name&Filter.1.Value.1=us%2A";
const POST_AUTH: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261121/us-east-1/ec2/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-extra, Signature=6cdfebb9b09436bd8321236419c51d00731248cc8a284464fbf1a6c2f590817f";
const GET_QUERY: &str = "Version=2016-11-15&Action=DescribeKeyPairs&KeyName.1=a%20b%2F~%C3%A4";
const GET_AUTH: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261121/eu-west-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=bdea98c8213f30e6d8b687ae4e70b970506cbd28835ef4171be8eec0482edafc";
const STS_AUTH: &str = "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20261121/us-east-1/sts/aws4_request, SignedHeaders=host;x-amz-date, Signature=875cec5080945deb11fa8417a8dbfd5e8d4f73626b786a174b3f1c81f8c3321f";
const PRESIGNED_QUERY: &str = "Action=DescribeRegions&Version=2016-11-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20261121%2Fus-east-1%2Fec2%2Faws4_request&X-Amz-Date=20261121T182733Z&X-Amz-Expires=900&X-Amz-SignedHeaders=host&X-Amz-Signature=d2fd16474ac582a9d0c63237cf4c0694222acfb9bd101baf60fd585b40c55ec6";

/// A request that can be spoilt.
#[derive(Clone)]
struct Case {
    method: &'static str,
    path: String,
    query: String,
    headers: HeaderMap,
    body: Vec<u8>,
    now: OffsetDateTime,
    secret: &'static str,
}

impl Case {
    fn new(
        method: &'static str,
        query: &str,
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> Self {
        let mut map = HeaderMap::new();
        map.insert("host", HeaderValue::from_static("127.0.0.1:8773"));
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        Self {
            method,
            path: "/".into(),
            query: query.into(),
            headers: map,
            body: body.into(),
            now: NOW,
            secret: SECRET,
        }
    }

    fn post() -> Self {
        let form = "application/x-www-form-urlencoded; charset=utf-8";
        let headers = [
            ("content-type", form),
            ("x-extra", "  a   b  "),
            ("x-amz-date", "20261121T182733Z"),
            ("authorization", POST_AUTH),
        ];
        Self::new("POST", "", &headers, POST_BODY)
    }

    fn get() -> Self {
        let headers = [
            ("x-amz-date", "20261121T182733Z"),
            ("authorization", GET_AUTH),
        ];
        Self::new("GET", GET_QUERY, &headers, "")
    }

    fn presigned() -> Self {
        Self::new("GET", PRESIGNED_QUERY, &[], "")
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.headers
            .insert(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn auth(self, from: &str, to: &str) -> Self {
        let text = self.headers["authorization"].to_str().unwrap().to_owned();
        assert!(text.contains(from), "{from}");
        self.set("authorization", &text.replace(from, to))
    }

    fn query(mut self, from: &str, to: &str) -> Self {
        assert!(self.query.contains(from), "{from}");
        self.query = self.query.replace(from, to);
        self
    }

    fn later(mut self, by: Duration) -> Self {
        self.now += by;
        self
    }

    fn verify(&self) -> Result<Caller, ApiError> {
        let key = AccessKey {
            id: ID.into(),
            secret: self.secret.into(),
            account: None,
        };
        let query = form::parse(self.query.as_bytes())?;
        let request = Signed {
            method: self.method,
            path: &self.path,
            query: &query,
            headers: &self.headers,
            body: &self.body,
        };
        let form = form::parse(&self.body)?;
        verify(&request, &form, &Credentials::fixed(key, &[]), self.now)
    }

    fn code(&self) -> String {
        self.verify().unwrap_err().code
    }
}

#[test]
fn what_botocore_signs_is_believed() {
    let caller = Case::post().verify().unwrap();
    assert_eq!(
        (&*caller.access_key, &*caller.region, &*caller.service),
        (ID, "us-east-1", "ec2")
    );
    assert_eq!(Case::get().verify().unwrap().region, "eu-west-1");
    Case::presigned().verify().unwrap();
    let headers = [
        ("x-amz-date", "20261121T182733Z"),
        ("authorization", STS_AUTH),
    ];
    let sts = Case::new(
        "POST",
        "",
        &headers,
        "Action=GetCallerIdentity&Version=2011-06-15",
    );
    assert_eq!(sts.verify().unwrap().service, "sts");
}

#[test]
fn the_order_of_a_query_and_of_headers_does_not_matter() {
    let case = Case::get();
    let query = "KeyName.1=a+b%2f%7E%C3%A4&Action=DescribeKeyPairs&Version=2016-11-15";
    let whole = case.query.clone();
    case.query(&whole, query).verify().unwrap();
}

#[test]
fn nothing_that_is_signed_may_change() {
    let mut body = Case::post();
    body.body = POST_BODY.replace("us", "eu").into();
    let mut path = Case::post();
    path.path = "/x".into();
    let mut method = Case::presigned();
    method.method = "POST";
    let mut secret = Case::post();
    secret.secret = "another";
    let mut twice = Case::post();
    twice
        .headers
        .append("x-extra", HeaderValue::from_static("c"));
    for (what, case) in [
        ("body", body),
        ("path", path),
        ("method", method),
        ("secret", secret),
        ("header", Case::post().set("x-extra", "a b c")),
        ("header twice", twice),
        ("host", Case::post().set("host", "127.0.0.1:8774")),
        ("query", Case::get().query("%C3%A4", "a")),
        (
            "query added",
            Case::get().query("Version", "DryRun=true&Version"),
        ),
        ("region", Case::post().auth("us-east-1", "us-east-2")),
        ("no region", Case::post().auth("us-east-1", "mars-1")),
        ("service", Case::post().auth("/ec2/", "/s3/")),
        ("other service", Case::post().auth("/ec2/", "/sts/")),
        ("term", Case::post().auth("aws4_request", "aws5_request")),
        ("day", Case::post().auth("20261121", "20261120")),
        ("date", Case::post().set("x-amz-date", "20261121T182734Z")),
        ("fewer headers", Case::post().auth(";x-extra", "")),
        ("signature", Case::post().auth("6cdfeb", "6cdfea")),
        ("signature's case", Case::post().auth("6cdfeb", "6CDFEB")),
        ("signature cut", Case::post().auth("590817f", "59081")),
        ("signature no hex", Case::post().auth("6cdfeb", "xxxxxx")),
        (
            "body's digest",
            Case::post().set("x-amz-content-sha256", "UNSIGNED-PAYLOAD"),
        ),
        (
            "presigned lifetime",
            Case::presigned().query("=900", "=901"),
        ),
        (
            "presigned action",
            Case::presigned().query("DescribeRegions", "DescribeZones"),
        ),
    ] {
        assert_eq!(case.code(), "SignatureDoesNotMatch", "{what}");
    }
}

#[test]
fn the_true_digest_of_the_body_may_be_told() {
    let digest = hex::encode(Sha256::digest(POST_BODY));
    Case::post()
        .set("x-amz-content-sha256", &digest)
        .verify()
        .unwrap();
}

#[test]
fn incomplete_signatures_are_told_what_lacks() {
    let mut no_header = Case::post();
    no_header.headers.remove("x-extra");
    let mut no_date = Case::post();
    no_date.headers.remove("x-amz-date");
    let mut two = Case::post();
    two.headers
        .append("authorization", HeaderValue::from_static(POST_AUTH));
    let mut both = Case::post();
    both.query = PRESIGNED_QUERY.into();
    for (what, case) in [
        ("no header", no_header),
        ("no date", no_date),
        ("two signatures", two),
        ("two ways", both),
        ("algorithm", Case::post().auth("SHA256", "SHA512")),
        ("bearer", Case::post().set("authorization", "Bearer x")),
        (
            "no credential",
            Case::post().auth("Credential=", "Credentials="),
        ),
        (
            "empty",
            Case::post().auth(
                "SignedHeaders=content-type;host;x-amz-date;x-extra",
                "SignedHeaders=",
            ),
        ),
        ("no signature", Case::post().auth(", Signature=", " ")),
        ("scope too short", Case::post().auth("/aws4_request", "")),
        ("scope's part empty", Case::post().auth("us-east-1", "")),
        ("host not signed", Case::post().auth("host;", "")),
        ("upper case", Case::post().auth("host;", "Host;")),
        (
            "not sorted",
            Case::post().auth("content-type;host", "host;content-type"),
        ),
        (
            "date's form",
            Case::post().set("x-amz-date", "2026-11-21T18:27:33Z"),
        ),
        ("lifetime", Case::presigned().query("=900", "=604801")),
        ("lifetime 0", Case::presigned().query("=900", "=0")),
        (
            "presigned twice",
            Case::presigned().query("X-Amz-Expires=900", "X-Amz-Expires=900&X-Amz-Expires=900"),
        ),
        (
            "presigned algorithm",
            Case::presigned().query("SHA256", "SHA1"),
        ),
        (
            "presigned without date",
            Case::presigned().query("X-Amz-Date", "X-Amz-Data"),
        ),
    ] {
        assert_eq!(case.code(), "IncompleteSignature", "{what}");
    }
}

#[test]
fn callers_that_are_not_known_are_refused() {
    assert_eq!(
        Case::new("GET", GET_QUERY, &[], "").code(),
        "MissingAuthenticationToken"
    );
    assert_eq!(Case::post().auth("AKIA", "AKIB").code(), "AuthFailure");
    assert_eq!(
        Case::post().set("x-amz-security-token", "x").code(),
        "AuthFailure"
    );
    let token = Case::presigned().query(
        "&X-Amz-Signature",
        "&X-Amz-Security-Token=x&X-Amz-Signature",
    );
    assert_eq!(token.code(), "AuthFailure");
}

#[test]
fn signature_version_2_is_refused_by_its_name() {
    let header = Case::post().set("authorization", "AWS AKIAIOSFODNN7EXAMPLE:c2ln");
    let query =
        "Action=DescribeRegions&SignatureVersion=2&AWSAccessKeyId=AKIAIOSFODNN7EXAMPLE&Signature=x";
    for case in [
        header,
        Case::new("GET", query, &[], ""),
        Case::new("POST", "", &[], query),
    ] {
        let error = case.verify().unwrap_err();
        assert_eq!(error.code, "AuthFailure");
        assert!(error.message.contains("Signature Version 2"));
    }
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    for by in [SKEW, -SKEW] {
        Case::post().later(by).verify().unwrap();
        let more = by
            + if by.is_positive() {
                Duration::SECOND
            } else {
                -Duration::SECOND
            };
        assert_eq!(Case::post().later(more).code(), "RequestExpired");
    }
    Case::presigned()
        .later(Duration::seconds(900))
        .verify()
        .unwrap();
    let late = Case::presigned().later(Duration::seconds(901));
    assert_eq!(late.code(), "RequestExpired");
    let early = Case::presigned().later(-SKEW - Duration::SECOND);
    assert_eq!(early.code(), "RequestExpired");
}

#[test]
fn a_date_header_will_do() {
    let mut case = Case::get();
    case.headers.remove("x-amz-date");
    // Signed by hand: that the date is read is seen by how far verification gets.
    let case = case
        .auth("host;x-amz-date", "date;host")
        .set("date", "Sat, 21 Nov 2026 18:27:33 GMT");
    assert_eq!(case.code(), "SignatureDoesNotMatch");
    assert_eq!(case.set("date", "yesterday").code(), "IncompleteSignature");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(
        authorization in "(AWS4-HMAC-SHA256 )?(Credential=[A-Z0-9/a-z-]{0,60}, ?)?(SignedHeaders=[a-z;-]{0,20},)?.{0,40}",
        date in "[0-9TZ]{0,20}",
        query in "(X-Amz-[A-Za-z]{1,9}=[^&]{0,9}&?){0,5}",
        name in "[a-z-]{1,12}",
        value in proptest::collection::vec(any::<u8>(), 0..20),
        body in proptest::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut case = Case::post();
        let headers = [("authorization", authorization.into_bytes()), ("x-amz-date", date.into_bytes()), (&*name, value)];
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes());
            if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
                case.headers.insert(name, value);
            }
        }
        case.query = query;
        case.body = body;
        prop_assert!(case.verify().is_err());
    }
}
