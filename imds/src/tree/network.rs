//! The addresses of `meta-data/` and `meta-data/network/`.

use super::{Directory, is_name};
use crate::names;
use crate::view::{InstanceView, InterfaceView};

pub(super) fn fill(dir: &mut Directory, view: &InstanceView) {
    if let Some(primary) = view.interfaces.first() {
        dir.text("mac", primary.mac.as_str());
        dir.text_if(
            "local-ipv4",
            primary.private_ipv4s.first().map(ToString::to_string),
        );
        dir.text_if("ipv6", primary.ipv6s.first().map(ToString::to_string));
        dir.lines(
            "security-groups",
            primary.security_groups.iter().map(|(_, name)| name),
        );
        if let Some(address) = primary.public_ipv4 {
            dir.text("public-ipv4", address.to_string());
            dir.text(
                "public-hostname",
                names::public_dns_name(address, &view.region),
            );
        }
    }
    for interface in view
        .interfaces
        .iter()
        .filter(|interface| is_name(&interface.mac))
    {
        let macs = dir
            .directory("network")
            .directory("interfaces")
            .directory("macs");
        fill_interface(macs.directory(&interface.mac), interface, view);
    }
}

fn fill_interface(dir: &mut Directory, interface: &InterfaceView, view: &InstanceView) {
    dir.text("device-number", interface.device_number.to_string());
    dir.text("interface-id", interface.interface_id.as_str());
    dir.text("mac", interface.mac.as_str());
    // Every instance has one network card; real builds use the first name, the user guide the
    // second.
    dir.text("network-card", "0");
    dir.text("network-card-index", "0");
    dir.text("owner-id", view.account_id.as_str());
    dir.lines("local-ipv4s", &interface.private_ipv4s);
    dir.lines("ipv6s", &interface.ipv6s);
    dir.lines(
        "security-group-ids",
        interface.security_groups.iter().map(|(id, _)| id),
    );
    dir.lines(
        "security-groups",
        interface.security_groups.iter().map(|(_, name)| name),
    );
    dir.text("subnet-id", interface.subnet_id.as_str());
    dir.text("subnet-ipv4-cidr-block", interface.subnet_cidr.as_str());
    dir.lines("subnet-ipv6-cidr-blocks", &interface.subnet_ipv6_cidrs);
    dir.text("vpc-id", interface.vpc_id.as_str());
    dir.text_if(
        "vpc-ipv4-cidr-block",
        interface.vpc_cidrs.first().map(String::as_str),
    );
    dir.lines("vpc-ipv4-cidr-blocks", &interface.vpc_cidrs);
    dir.lines("vpc-ipv6-cidr-blocks", &interface.vpc_ipv6_cidrs);
    let Some(private) = interface.private_ipv4s.first() else {
        return;
    };
    dir.text(
        "local-hostname",
        names::private_dns_name(*private, &view.region),
    );
    if let Some(public) = interface.public_ipv4 {
        dir.text(
            "public-hostname",
            names::public_dns_name(public, &view.region),
        );
        dir.text("public-ipv4s", public.to_string());
        dir.directory("ipv4-associations")
            .text(&public.to_string(), private.to_string());
    }
}
