//! Views that several tests use.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use cumulet_imds::view::{
    Credentials, InstanceProfile, InstanceView, InterfaceView, LifeCycle, MaintenanceEvent,
    SpotInterruption,
};

/// An instance that may be read without a token.
pub(crate) fn open() -> InstanceView {
    let mut view = InstanceView::example();
    view.options.tokens_required = false;
    view
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "ASIAIOSFODNN7EXAMPLE".into(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
        token: "IQoJb3JpZ2luX2VjE==".into(),
        last_updated: time(1_767_225_600),
        expiration: time(1_767_247_200),
    }
}

fn profile() -> InstanceProfile {
    InstanceProfile {
        arn: "arn:aws:iam::123456789012:instance-profile/web".into(),
        id: "AIPABCDEFGHIJKLMN123".into(),
        role_name: "web-role".into(),
        credentials: credentials(),
    }
}

/// A view in which everything that can be there is there.
pub(crate) fn full() -> InstanceView {
    let mut view = open();
    view.options.ipv6 = true;
    view.detailed_monitoring = true;
    view.block_devices.insert("ephemeral0".into(), "sdb".into());
    view.block_devices.insert("swap".into(), "sda3".into());
    let primary = &mut view.interfaces[0];
    primary.ipv6s = vec![Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 10)];
    primary.subnet_ipv6_cidrs = vec!["2001:db8::/64".into()];
    primary.vpc_ipv6_cidrs = vec!["2001:db8::/56".into()];
    view.interfaces.push(InterfaceView {
        interface_id: "eni-2".into(),
        mac: "02:12:34:56:78:9b".into(),
        device_number: 1,
        private_ipv4s: vec![Ipv4Addr::new(172, 31, 16, 11)],
        public_ipv4: None,
        ..InterfaceView::example()
    });
    let event = MaintenanceEvent {
        event_id: "instance-event-0d59937288b749b32".into(),
        code: "system-reboot".into(),
        description: "scheduled reboot".into(),
        not_before: time(1_548_061_243),
        not_after: Some(time(1_548_062_000)),
        state: "active".into(),
    };
    let extras = &mut view.extras;
    extras.life_cycle = LifeCycle::Spot;
    extras.ancestor_ami_ids = vec!["ami-1".into(), "ami-2".into()];
    extras.product_codes = vec!["3iplms73etrdhxdepv72l6ywj".into()];
    extras.kernel_id = Some("aki-1".into());
    extras.ramdisk_id = Some("ari-1".into());
    extras.placement_group = Some("group".into());
    extras.host_id = Some("h-1".into());
    extras.partition_number = Some(3);
    extras.instance_profile = Some(profile());
    extras.identity_credentials = Some(credentials());
    extras.spot_interruption = Some(SpotInterruption {
        action: "terminate".into(),
        time: time(1_505_722_920),
    });
    extras.rebalance_notice = Some(time(1_604_592_130));
    extras.autoscaling_target_state = Some("InService".into());
    extras.maintenance_scheduled = vec![event];
    view
}
