//! Section 7 and S1: clients as they really ask.

use std::collections::BTreeMap;

use cumulet_imds::view::{InstanceView, PublicKey};
use cumulet_imds::{Moment, respond};
use proptest::prelude::*;

use crate::client::{Service, keys};
use crate::views;

/// cloud-init 22.4.2, `sources/DataSourceEc2.py` and `sources/helpers/ec2.py`.
struct CloudInit<'a> {
    service: &'a Service,
    token: String,
    asked: Vec<String>,
}

impl<'a> CloudInit<'a> {
    fn start(service: &'a Service) -> Self {
        let headers = [
            "User-Agent: Cloud-Init/22.4.2",
            "Accept-Encoding: gzip, deflate",
            "Accept: */*",
            "Connection: keep-alive",
            "X-aws-ec2-metadata-token-ttl-seconds: 21600",
            "Content-Length: 0",
        ];
        let reply = service.ask("PUT", "/latest/api/token", &headers);
        assert_eq!(reply.status, 200, "{reply:?}");
        let mut client = Self {
            service,
            token: reply.text(),
            asked: Vec::new(),
        };
        let id = client
            .get("/2021-03-23/meta-data/instance-id")
            .expect("the instance id");
        assert_eq!(id, "i-0123456789abcdef0");
        client
    }

    fn get(&mut self, path: &str) -> Option<String> {
        self.asked.push(path.to_owned());
        let token = format!("X-aws-ec2-metadata-token: {}", self.token);
        let headers = [
            "User-Agent: python-requests/2.28.1",
            "Accept-Encoding: gzip, deflate",
            "Accept: */*",
            "Connection: keep-alive",
            &token,
        ];
        let reply = self.service.ask("GET", path, &headers);
        match reply.status {
            200 => Some(reply.text()),
            404 => None,
            other => panic!("{other} for {path}"),
        }
    }

    /// Directories in listing order and depth first, then the leaves of the level.
    fn materialize(&mut self, listing: &str, base: &str, found: &mut BTreeMap<String, String>) {
        let base = base.trim_end_matches('/');
        let mut leaves = Vec::new();
        for line in listing
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            let name = line.trim_end_matches('/');
            if name == "security-credentials" {
                continue;
            }
            if line.ends_with('/') {
                let path = format!("{base}/{}/", quoted(name));
                let below = self
                    .get(&path)
                    .unwrap_or_else(|| panic!("listed but absent: {path}"));
                self.materialize(&below, &path, found);
                continue;
            }
            match line.split_once('=') {
                Some((index, _)) if index.parse::<u32>().is_ok() => {
                    leaves.push(format!("{index}/openssh-key"));
                }
                _ => leaves.push(quoted(name)),
            }
        }
        for leaf in leaves {
            let path = format!("{base}/{leaf}");
            let value = self
                .get(&path)
                .unwrap_or_else(|| panic!("listed but absent: {path}"));
            found.insert(path, value);
        }
    }

    fn crawl(&mut self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        self.get("/2021-03-23/user-data");
        for base in [
            "/2021-03-23/meta-data/",
            "/2021-03-23/dynamic/instance-identity",
        ] {
            let listing = self.get(base).unwrap_or_else(|| panic!("absent: {base}"));
            self.materialize(&listing, base, &mut found);
        }
        found
    }
}

/// Python's `quote(name, safe='/:')`.
fn quoted(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-~/:".contains(&b);
    name.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[test]
fn c7_cloud_init_crawls_a_plain_instance() {
    let mut view = InstanceView::example();
    view.options.instance_tags = false;
    let service = Service::start(view);
    let mut client = CloudInit::start(&service);
    let found = client.crawl();
    let at = |path: &str| found[&format!("/2021-03-23/{path}")].as_str();
    assert_eq!(
        at("meta-data/local-hostname"),
        "ip-172-31-16-10.ec2.internal"
    );
    assert!(at("meta-data/public-keys/0/openssh-key").starts_with("ssh-ed25519 "));
    assert_eq!(
        at("meta-data/network/interfaces/macs/02:12:34:56:78:9a/device-number"),
        "0"
    );
    let document: serde_json::Value =
        serde_json::from_str(at("dynamic/instance-identity/document")).unwrap();
    assert_eq!(document["region"], "us-east-1");
    // The first requests are the ones that were recorded, in that order.
    assert_eq!(
        client.asked[..4],
        [
            "/2021-03-23/meta-data/instance-id",
            "/2021-03-23/user-data",
            "/2021-03-23/meta-data/",
            "/2021-03-23/meta-data/block-device-mapping/"
        ]
    );
    let mut distinct = client.asked.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(
        distinct.len(),
        client.asked.len() - 1,
        "only instance-id is asked for twice"
    );
}

#[test]
fn c7_cloud_init_crawls_an_instance_with_everything() {
    let mut view = views::full();
    view.options.tokens_required = true;
    for key in ["ok:@=+,._-1", "größe", "a=b"] {
        view.tags.insert(key.into(), "value".into());
    }
    let service = Service::start(view);
    let found = CloudInit::start(&service).crawl();
    assert!(found.contains_key("/2021-03-23/meta-data/iam/info"));
    assert!(
        !found
            .keys()
            .any(|path| path.contains("security-credentials"))
    );
    assert_eq!(found["/2021-03-23/meta-data/tags/instance/a%3Db"], "value");
}

#[test]
fn c7_cloud_init_crawls_a_bare_instance() {
    let mut view = InstanceView::example();
    view.user_data = None;
    view.public_keys.clear();
    view.tags.clear();
    view.interfaces[0].public_ipv4 = None;
    let service = Service::start(view);
    let found = CloudInit::start(&service).crawl();
    assert!(found.len() > 30, "{}", found.len());
}

/// botocore's `InstanceMetadataFetcher` and `InstanceMetadataRegionFetcher`.
#[test]
fn s1_botocore_fetches_role_credentials_and_region() {
    let mut view = views::full();
    view.options.tokens_required = true;
    let service = Service::start(view);
    let agent = "user-agent: Boto3/1.44.5";
    let ttl = "x-aws-ec2-metadata-token-ttl-seconds: 21600";
    let token = service.ask("PUT", "/latest/api/token", &[ttl, agent]);
    assert_eq!(token.status, 200);
    let token = format!("x-aws-ec2-metadata-token: {}", token.text());
    let get = |path: &str| {
        let reply = service.ask("GET", path, &[&token, agent]);
        assert_eq!(reply.status, 200, "{path}");
        reply.text()
    };
    let role = get("/latest/meta-data/iam/security-credentials/");
    let role = role.lines().next().unwrap();
    let text = get(&format!(
        "/latest/meta-data/iam/security-credentials/{role}"
    ));
    let credentials: serde_json::Value = serde_json::from_str(&text).unwrap();
    for key in ["AccessKeyId", "SecretAccessKey", "Token", "Expiration"] {
        assert!(credentials[key].is_string(), "{key}");
    }
    let zone = get("/latest/meta-data/placement/availability-zone/");
    assert_eq!(zone.trim_end_matches(char::is_alphabetic), "us-east-1");
}

/// botocore without IMDSv2: 404, 403 or 405 on the token make it fall back, 400 is an error; and
/// an instance without a role answers 404, which ends the search.
#[test]
fn s1_botocore_without_a_role() {
    let service = Service::start(InstanceView::example());
    assert_eq!(
        service
            .get("/latest/meta-data/iam/security-credentials/")
            .status,
        404
    );
}

/// ec2-hibinit-agent: 200 and a text other than `false` means "configure swap".
#[test]
fn s3_hibinit_agent() {
    let service = Service::start(InstanceView::example());
    assert_eq!(
        service
            .get("/latest/meta-data/hibernation/configured")
            .text(),
        "false"
    );
}

/// Follows every line of every listing by the pure core.
fn walk(view: &InstanceView, path: &str, depth: usize) -> usize {
    assert!(depth < 12, "{path}");
    let get = |path: &str| {
        let head = http::Request::get(path)
            .body(())
            .expect(path)
            .into_parts()
            .0;
        let now = std::time::SystemTime::UNIX_EPOCH;
        respond(&head, view, &keys(), Moment { now, nonce: [0; 6] })
    };
    let listing = get(path);
    assert_eq!(listing.status(), 200, "{path}");
    let listing = String::from_utf8(listing.body().to_vec()).expect("a listing of text");
    let mut count = 0;
    for line in listing.lines() {
        let name = match line.split_once('=') {
            Some((index, _)) if path.ends_with("/public-keys/") => format!("{index}/"),
            _ => quoted(line),
        };
        // The parts of a version are directories without saying so.
        let directory = matches!(name.as_str(), "meta-data" | "dynamic") && depth == 0;
        let below = format!("{path}{name}{}", if directory { "/" } else { "" });
        if below.ends_with('/') {
            count += walk(view, &below, depth + 1);
        } else {
            assert_eq!(get(&below).status(), 200, "listed but absent: {below}");
            count += 1;
        }
    }
    count
}

prop_compose! {
    fn any_view()(
        tags in proptest::collection::btree_map("\\PC{0,12}|[a-z=./ %\n]{0,8}", "\\PC{0,12}", 0..6),
        keys in proptest::collection::vec("\\PC{0,12}|[a-z=/\n]{0,8}", 0..4),
        devices in proptest::collection::btree_map("[a-z0-9./ \n]{0,6}", "\\PC{0,6}", 0..4),
        mac in "[0-9a-f:]{17}|\\PC{0,8}|[./]{0,3}",
        role in "\\PC{0,12}|[a-z=./ %\n]{0,8}",
        full in any::<bool>(),
    ) -> InstanceView {
        let mut view = if full { views::full() } else { InstanceView::example() };
        view.options.tokens_required = false;
        view.tags = tags;
        view.public_keys =
            keys.into_iter().map(|name| PublicKey { name, openssh: "ssh-x y".into() }).collect();
        view.block_devices = devices;
        view.interfaces[0].mac = mac;
        if let Some(profile) = &mut view.extras.instance_profile {
            profile.role_name = role;
        }
        view
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever texts a user chooses, no listing names something that is not served.
    #[test]
    fn listings_are_true(view in any_view()) {
        prop_assert!(walk(&view, "/latest/", 0) > 30);
    }
}
