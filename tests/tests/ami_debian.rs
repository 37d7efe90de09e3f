//! An unmodified Debian: its own cloud-init finds EC2, and stop and start are EC2's.

use cumulet_tests::cumulet::{Cumulet, folder, text};

const USER_DATA: &str = "#!/bin/sh
id -u > /root/user-data-uid
date >> /root/user-data-runs
";

/// Asks the metadata service with a token, as any program in the guest may.
const INSTANCE_ID: &str = "python3 - <<'END'
from urllib.request import Request, urlopen
base = 'http://169.254.169.254/latest/'
ttl = {'X-aws-ec2-metadata-token-ttl-seconds': '60'}
token = urlopen(Request(base + 'api/token', method='PUT', headers=ttl)).read().decode()
header = {'X-aws-ec2-metadata-token': token}
print(urlopen(Request(base + 'meta-data/instance-id', headers=header)).read().decode())
END";

fn sh(cumulet: &Cumulet, id: &str, script: &str) -> String {
    let out = cumulet.run(&["ssh", "--wait", "18m", id, "--", script]);
    out.trim().to_owned()
}

#[test]
fn first_boot_stop_and_start() {
    let cumulet = Cumulet::at(folder("CUMULET_AMI_HOME"));
    let user_data = std::env::temp_dir().join(format!("user-data-{}", std::process::id()));
    std::fs::write(&user_data, USER_DATA).unwrap();
    let launched = cumulet.json(&[
        "run",
        "debian-12",
        "--keep",
        "--name",
        "debian",
        "--instance-type",
        "t3.micro",
        "--user-data",
        user_data.to_str().unwrap(),
        "--scratch",
        "64M",
        "--metadata-options",
        "http-tokens=required",
        "--uplink",
        "none",
    ]);
    let instance = &launched["Instances"][0];
    let id = text(&instance["InstanceId"]);
    let address = text(&instance["PrivateIpAddress"]);

    // Login by key works, and cloud-init has found EC2.
    sh(&cumulet, &id, "cloud-init status --wait");
    assert_eq!(sh(&cumulet, &id, "whoami"), "ec2-user");
    assert_eq!(sh(&cumulet, &id, "cloud-id"), "aws");
    assert_eq!(
        sh(&cumulet, &id, "hostname"),
        format!("ip-{}", address.replace('.', "-"))
    );
    let source = sh(&cumulet, &id, "cat /run/cloud-init/result.json");
    assert!(source.contains("DataSourceEc2"), "{source}");
    assert_eq!(sh(&cumulet, &id, INSTANCE_ID), id);

    // The user data ran as root.
    assert_eq!(sh(&cumulet, &id, "sudo cat /root/user-data-uid"), "0");
    let scratch = "/dev/disk/by-id/virtio-ephemeral0";
    let fill = format!(
        "echo kept | sudo tee /root/kept; echo gone | sudo dd of={scratch} conv=fsync; sync"
    );
    sh(&cumulet, &id, &fill);
    assert_eq!(
        sh(&cumulet, &id, &format!("sudo head -c 4 {scratch}")),
        "gone"
    );

    let stopped = cumulet.json(&["stop", &id]);
    assert_eq!(
        stopped["StoppingInstances"][0]["CurrentState"]["Name"],
        "stopped"
    );
    let started = cumulet.json(&["start", &id]);
    assert_eq!(started["StartingInstances"][0]["InstanceId"], id.as_str());

    sh(&cumulet, &id, "cloud-init status --wait");
    assert_eq!(sh(&cumulet, &id, INSTANCE_ID), id);
    assert_eq!(sh(&cumulet, &id, "sudo wc -l < /root/user-data-runs"), "1");
    assert_eq!(sh(&cumulet, &id, "sudo cat /root/kept"), "kept");
    let blank = format!("sudo cmp -n 1048576 {scratch} /dev/zero && echo blank");
    assert_eq!(sh(&cumulet, &id, &blank), "blank");
    cumulet.run(&["terminate", &id]);
}
