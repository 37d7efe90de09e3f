//! `meta-data/`: the instance itself.

use super::{Directory, iam, is_name, is_tag_key_servable, network};
use crate::json::{self, Object};
use crate::names;
use crate::view::{InstanceView, LifeCycle, MaintenanceEvent};

pub(super) fn fill(dir: &mut Directory, view: &InstanceView) {
    let extras = &view.extras;
    dir.text("ami-id", view.image_id.as_str());
    dir.text("ami-launch-index", view.launch_index.to_string());
    dir.text("ami-manifest-path", "(unknown)");
    dir.lines("ancestor-ami-ids", &extras.ancestor_ami_ids);
    dir.text("hostname", hostname(view));
    dir.text("local-hostname", hostname(view));
    dir.text("instance-action", "none");
    dir.text("instance-id", view.instance_id.as_str());
    dir.text("instance-life-cycle", life_cycle(extras.life_cycle));
    dir.text("instance-type", view.instance_type.as_str());
    dir.text_if("kernel-id", extras.kernel_id.as_deref());
    dir.lines("product-codes", &extras.product_codes);
    dir.text("profile", "default-hvm");
    dir.text_if("ramdisk-id", extras.ramdisk_id.as_deref());
    dir.text("reservation-id", view.reservation_id.as_str());
    dir.text("system", "nitro");
    dir.directory("hibernation")
        .text("configured", view.hibernation_configured.to_string());
    // EC2 serves just this line since Xen's vhostmd is gone.
    let metrics = dir.directory("metrics");
    metrics.text("vhostmd", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>");
    let services = dir.directory("services");
    services.text("domain", names::services_domain(&view.region));
    services.text("partition", names::partition(&view.region));

    block_devices(dir, view);
    events(dir, view);
    placement(dir, view);
    public_keys(dir, view);
    tags(dir, view);
    spot(dir, view);
    if let Some(state) = &extras.autoscaling_target_state {
        dir.directory("autoscaling")
            .text("target-lifecycle-state", state.as_str());
    }
    network::fill(dir, view);
    iam::fill(dir, view);
}

fn hostname(view: &InstanceView) -> String {
    let address = view
        .interfaces
        .first()
        .and_then(|primary| primary.private_ipv4s.first());
    match address {
        Some(address) => names::private_dns_name(*address, &view.region),
        // EC2's resource names: what instances without a private IPv4 address are called.
        None => format!(
            "{}.{}",
            view.instance_id,
            names::private_domain(&view.region)
        ),
    }
}

fn life_cycle(life_cycle: LifeCycle) -> &'static str {
    match life_cycle {
        LifeCycle::OnDemand => "on-demand",
        LifeCycle::Spot => "spot",
        LifeCycle::Scheduled => "scheduled",
    }
}

fn block_devices(dir: &mut Directory, view: &InstanceView) {
    for (mapping, device) in view
        .block_devices
        .iter()
        .filter(|(mapping, _)| is_name(mapping))
    {
        dir.directory("block-device-mapping")
            .text(mapping, device.as_str());
    }
}

fn events(dir: &mut Directory, view: &InstanceView) {
    let events = dir.directory("events");
    let maintenance = events.directory("maintenance");
    maintenance.text(
        "history",
        maintenance_list(&view.extras.maintenance_history),
    );
    maintenance.text(
        "scheduled",
        maintenance_list(&view.extras.maintenance_scheduled),
    );
    if let Some(notice) = view.extras.rebalance_notice {
        let text = format!("{{\"noticeTime\":\"{}\"}}", json::iso(notice));
        events.directory("recommendations").text("rebalance", text);
    }
}

fn maintenance_list(events: &[MaintenanceEvent]) -> String {
    let object = |event: &MaintenanceEvent| {
        let mut object = Object::default();
        object.text("NotBefore", &json::event_time(event.not_before));
        object.text("Code", &event.code);
        object.text("Description", &event.description);
        object.text("EventId", &event.event_id);
        if let Some(time) = event.not_after {
            object.text("NotAfter", &json::event_time(time));
        }
        object.text("State", &event.state);
        object
    };
    json::list(&events.iter().map(object).collect::<Vec<_>>())
}

fn placement(dir: &mut Directory, view: &InstanceView) {
    let placement = dir.directory("placement");
    placement.text("availability-zone", view.availability_zone.as_str());
    placement.text("availability-zone-id", view.availability_zone_id.as_str());
    placement.text("region", view.region.as_str());
    placement.text_if("group-name", view.extras.placement_group.as_deref());
    placement.text_if("host-id", view.extras.host_id.as_deref());
    placement.text_if(
        "partition-number",
        view.extras.partition_number.map(|n| n.to_string()),
    );
}

fn public_keys(dir: &mut Directory, view: &InstanceView) {
    for (index, key) in view.public_keys.iter().enumerate() {
        // A key's name is text of the user; a line break in it would forge an entry.
        let name = key.name.replace(char::is_control, " ");
        let index = index.to_string();
        let entry = dir
            .directory("public-keys")
            .labelled(&index, Some(format!("{index}={name}")));
        entry.text("openssh-key", format!("{}\n", key.openssh));
    }
}

fn tags(dir: &mut Directory, view: &InstanceView) {
    if !view.options.instance_tags {
        return;
    }
    for (key, value) in view.tags.iter().filter(|(key, _)| is_tag_key_servable(key)) {
        dir.directory("tags")
            .directory("instance")
            .text(key, value.as_str());
    }
}

fn spot(dir: &mut Directory, view: &InstanceView) {
    let Some(notice) = &view.extras.spot_interruption else {
        return;
    };
    let time = json::iso(notice.time);
    let spot = dir.directory("spot");
    spot.text(
        "instance-action",
        format!("{{\"action\":\"{}\",\"time\":\"{time}\"}}", notice.action),
    );
    if notice.action == "terminate" {
        spot.text("termination-time", time);
    }
}
