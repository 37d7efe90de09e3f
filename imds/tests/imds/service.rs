//! Section 5: who reaches the service, and with which programs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;

use cumulet_imds::server::Config;
use cumulet_imds::view::InstanceView;

use crate::client::{HERE, Service, keys, request};

fn connection_is_closed_unanswered(service: &Service, source: IpAddr) -> bool {
    use std::io::{Read as _, Write as _};
    let mut stream = service.connect_from(source);
    let _ = stream.write_all(request("GET", "/", &[]).as_bytes());
    let mut answer = Vec::new();
    // Closed or reset, according to which side was faster.
    let _ = stream.read_to_end(&mut answer);
    answer.is_empty()
}

#[test]
fn n2_ipv6_only_when_enabled() {
    let Ok(listener) = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) else {
        eprintln!("this machine has no IPv6 loopback: the IPv6 endpoint is not tested");
        return;
    };
    let mut view = InstanceView::example();
    let here = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let service = Service::on(listener, view.clone(), keys(), Config::default());
    assert!(connection_is_closed_unanswered(&service, here));
    view.options.ipv6 = true;
    service.set(here, Some(view));
    assert_eq!(service.get("/latest/meta-data/ami-id").status, 200);
}

#[test]
fn n3_each_instance_sees_itself_and_strangers_see_nothing() {
    let service = Service::start(InstanceView::example());
    let second = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let mut view = InstanceView {
        instance_id: "i-2".into(),
        ..InstanceView::example()
    };
    view.options.tokens_required = false;
    service.set(second, Some(view));
    let ask = request("GET", "/latest/meta-data/instance-id", &[]);
    assert_eq!(service.raw_from(second, &ask).text(), "i-2");
    assert_eq!(service.raw(&ask).status, 401);
    let stranger = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
    assert!(connection_is_closed_unanswered(&service, stranger));
    service.set(second, None);
    assert!(connection_is_closed_unanswered(&service, second));
}

/// The commands of the EC2 user guide.
#[test]
fn curl_as_the_user_guide_tells() {
    let service = Service::start(InstanceView::example());
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["-sS", "--noproxy", "*"])
            .args(arguments)
            .output();
        let output = output.expect("the curl program (Debian package curl)");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let base = format!("http://{}", service.address);
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600";
    let token = curl(&["-X", "PUT", &format!("{base}/latest/api/token"), "-H", ttl]);
    let header = format!("X-aws-ec2-metadata-token: {token}");
    let get = |path: &str| curl(&["-H", &header, &format!("{base}{path}")]);
    assert_eq!(get("/latest/meta-data/instance-id"), "i-0123456789abcdef0");
    assert_eq!(get("/latest/user-data"), "#!/bin/sh\necho hello\n");
    let head = curl(&["-I", "-H", &header, &format!("{base}/latest/meta-data/")]);
    assert!(head.contains("Server: EC2ws\r\n"), "{head}");
    // One curl, one kept connection hoped for, several answers.
    let two = format!("{base}/latest/meta-data/{{ami-id,mac}}");
    assert!(curl(&["-H", &header, &two]).ends_with("02:12:34:56:78:9a"));
}

#[test]
fn a_view_may_change_or_vanish_while_connected() {
    use std::io::Write as _;
    let service = Service::start(InstanceView::example());
    let mut open = InstanceView::example();
    open.options.tokens_required = false;
    let mut stream = service.connect();
    service.set(HERE, Some(open));
    stream
        .write_all(request("GET", "/latest/meta-data/ami-id", &[]).as_bytes())
        .unwrap();
    assert_eq!(crate::client::Reply::read(stream).status, 200);
}
