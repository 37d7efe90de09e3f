//! What the API shows, read when everything has come to rest; what it shows in two places must be the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::{Agent, Failure, Fields, fields, until};
use crate::model::{Address, Instance, Model, place, volumes};
use crate::xml::Element;

/// What DescribeNetworkInterfaces says of one.
struct Shown {
    instance: Option<String>,
    index: Option<String>,
    private: String,
    public: Option<String>,
}

fn list(agent: &Agent, action: &str, set: &str, more: Fields) -> Result<Vec<Element>, Failure> {
    let mut pages = more;
    let mut all = Vec::new();
    loop {
        let answer = agent.call(action, &pages)?;
        all.extend_from_slice(answer.items(set));
        let Some(next) = answer.maybe("nextToken").filter(|next| !next.is_empty()) else {
            return Ok(all);
        };
        pages.retain(|(name, _)| name != "NextToken");
        pages.push(("NextToken".to_owned(), next.to_owned()));
    }
}

/// The reservation and the instance.
fn instances(agent: &Agent) -> Result<Vec<(String, Element)>, Failure> {
    let reservations = list(agent, "DescribeInstances", "reservationSet", Fields::new())?;
    let mut all = Vec::new();
    for reservation in reservations {
        let id = reservation.text("reservationId");
        let instances = reservation.items("instancesSet").iter();
        all.extend(instances.map(|instance| (id.clone(), instance.clone())));
    }
    Ok(all)
}

/// Waits until every instance rests.
fn settled(agent: &Agent) -> Result<Vec<(String, Element)>, Failure> {
    until(
        "every instance to be running, stopped or terminated",
        || {
            let all = match instances(agent) {
                Ok(all) => all,
                Err(failure) => return Some(Err(failure)),
            };
            let rests =
                |state: String| ["running", "stopped", "terminated"].contains(&state.as_str());
            let done = all
                .iter()
                .all(|(_, one)| rests(one.text("instanceState/name")));
            done.then_some(Ok(all))
        },
    )
}

fn tags_of(element: &Element) -> BTreeMap<String, String> {
    let tags = element.items("tagSet").iter();
    tags.map(|tag| (tag.text("key"), tag.text("value")))
        .collect()
}

/// What is there.
///
/// # Panics
/// When the parts of what is shown do not fit together.
pub(crate) fn look(agent: &Agent, forgetful: bool) -> Result<Model, Failure> {
    let mut model = Model::default();
    let mut instances = settled(agent)?;
    if forgetful {
        // They may be gone from what is read next.
        instances.retain(|(_, one)| one.text("instanceState/name") != "terminated");
    }
    let all = |action, set| list(agent, action, set, Fields::new());
    for tag in all("DescribeTags", "tagSet")? {
        let tags = model.tags.entry(tag.text("resourceId")).or_default();
        tags.insert(tag.text("key"), tag.text("value"));
    }
    let interfaces = read_interfaces(
        &mut model,
        &all("DescribeNetworkInterfaces", "networkInterfaceSet")?,
    );
    for address in all("DescribeAddresses", "addressesSet")? {
        let found = read_address(&address, &interfaces);
        model.addresses.insert(address.text("allocationId"), found);
    }
    for volume in all("DescribeVolumes", "volumeSet")? {
        let attachments = volume.items("attachmentSet");
        assert!(
            attachments.len() < 2,
            "a volume of two instances: {volume:?}"
        );
        let owner = attachments.first().map(|one| one.text("instanceId"));
        let expected = if owner.is_some() {
            "in-use"
        } else {
            "available"
        };
        assert_eq!(volume.text("status"), expected, "{volume:?}");
        assert_eq!(
            tags_of(&volume),
            model
                .tags
                .get(&volume.text("volumeId"))
                .cloned()
                .unwrap_or_default()
        );
        let doubled = model.volumes.insert(volume.text("volumeId"), owner);
        assert_eq!(doubled, None, "shown twice: {volume:?}");
    }
    for table in all("DescribeRouteTables", "routeTableSet")? {
        if table.items("associationSet").is_empty() {
            model.tables.insert(table.text("routeTableId"));
        }
    }
    let mut places = BTreeSet::new();
    for (reservation, instance) in &instances {
        read_instance(&mut model, instance, reservation, &interfaces);
        let place = (reservation.clone(), instance.text("amiLaunchIndex"));
        assert!(
            places.insert(place),
            "the same place in a launch: {instance:?}"
        );
    }
    owners(&model, &interfaces);
    if !forgetful {
        let everything = fields(&[("IncludeAllInstances", "true")]);
        let states = list(
            agent,
            "DescribeInstanceStatus",
            "instanceStatusSet",
            everything,
        )?;
        assert_eq!(states.len(), model.instances.len(), "{states:?}");
        for status in states {
            let instance = &model.instances[&status.text("instanceId")];
            assert_eq!(
                status.text("instanceState/name"),
                instance.state,
                "{status:?}"
            );
        }
    }
    Ok(model)
}

fn read_interfaces(model: &mut Model, shown: &[Element]) -> BTreeMap<String, Shown> {
    let mut all = BTreeMap::new();
    let (mut private, mut public, mut macs) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for one in shown {
        let id = one.text("networkInterfaceId");
        let instance = one.maybe("attachment/instanceId").map(str::to_owned);
        let expected = if instance.is_some() {
            "in-use"
        } else {
            "available"
        };
        assert_eq!(one.text("status"), expected, "{one:?}");
        let at = instance.as_ref().map(|instance| place(one, instance));
        let interface = Shown {
            index: at.as_ref().map(|at| at.index.clone()),
            instance,
            private: one.text("privateIpAddress"),
            public: one.maybe("association/publicIp").map(str::to_owned),
        };
        assert!(
            private.insert(interface.private.clone()),
            "address twice: {one:?}"
        );
        assert!(
            macs.insert(one.text("macAddress")),
            "MAC address twice: {one:?}"
        );
        if let Some(address) = &interface.public {
            assert!(
                public.insert(address.clone()),
                "public address twice: {one:?}"
            );
        }
        let doubled = model.interfaces.insert(id.clone(), at);
        assert_eq!(doubled, None, "shown twice: {one:?}");
        all.insert(id, interface);
    }
    all
}

fn read_address(address: &Element, interfaces: &BTreeMap<String, Shown>) -> Address {
    let found = Address {
        ip: address.text("publicIp"),
        interface: address.maybe("networkInterfaceId").map(str::to_owned),
    };
    assert_eq!(
        found.interface.is_some(),
        address.maybe("associationId").is_some(),
        "{address:?}"
    );
    if let Some(interface) = &found.interface {
        let interface = &interfaces[interface];
        assert_eq!(interface.public.as_ref(), Some(&found.ip), "{address:?}");
        assert_eq!(
            address.maybe("instanceId"),
            interface.instance.as_deref(),
            "{address:?}"
        );
    }
    found
}

fn read_instance(
    model: &mut Model,
    instance: &Element,
    reservation: &str,
    interfaces: &BTreeMap<String, Shown>,
) {
    let id = instance.text("instanceId");
    let state = instance.text("instanceState/name");
    let volumes = volumes(instance);
    let shown: BTreeSet<String> = instance
        .items("networkInterfaceSet")
        .iter()
        .map(|one| one.text("networkInterfaceId"))
        .collect();
    let own = interfaces
        .iter()
        .filter(|(_, one)| one.instance.as_ref() == Some(&id));
    let own: BTreeMap<&String, &Shown> = own.collect();
    assert_eq!(
        shown.iter().collect::<Vec<_>>(),
        own.keys().copied().collect::<Vec<_>>()
    );
    let indices: BTreeSet<_> = own.values().map(|one| one.index.clone()).collect();
    assert_eq!(
        indices.len(),
        own.len(),
        "two interfaces at one index: {instance:?}"
    );
    let primary = own.values().find(|one| one.index.as_deref() == Some("0"));
    let public = instance.maybe("ipAddress").filter(|text| !text.is_empty());
    if state == "terminated" {
        assert!(
            own.is_empty() && volumes.is_empty() && public.is_none(),
            "{instance:?}"
        );
    } else {
        let primary = primary.unwrap_or_else(|| panic!("no interface: {instance:?}"));
        assert_eq!(instance.text("privateIpAddress"), primary.private);
        assert_eq!(public, primary.public.as_deref(), "{instance:?}");
        let elastic = public.is_some_and(|ip| model.addresses.values().any(|one| one.ip == ip));
        // What is not elastic goes when the instance stops.
        let fits = elastic || public.is_none() || state == "running";
        assert!(fits, "{instance:?}");
    }
    let tags = model.tags.get(&id).cloned().unwrap_or_default();
    assert_eq!(tags_of(instance), tags, "{instance:?}");
    let found = Instance {
        token: instance.text("clientToken"),
        reservation: reservation.to_owned(),
        state,
        volumes,
    };
    let doubled = model.instances.insert(id, found);
    assert_eq!(doubled, None, "shown twice: {instance:?}");
}

/// Whoever has something is there and says so.
fn owners(model: &Model, interfaces: &BTreeMap<String, Shown>) {
    for (volume, owner) in &model.volumes {
        let says = |id: &String| model.instances[id].volumes.contains_key(volume);
        assert!(
            owner.as_ref().is_none_or(says),
            "{volume} of {owner:?}: {model:?}"
        );
    }
    for (id, instance) in &model.instances {
        for volume in instance.volumes.keys() {
            assert_eq!(
                model.volumes[volume].as_ref(),
                Some(id),
                "{volume}: {model:?}"
            );
        }
    }
    for (id, interface) in interfaces {
        let there = |owner: &String| model.instances.contains_key(owner);
        assert!(
            interface.instance.as_ref().is_none_or(there),
            "{id}: {model:?}"
        );
    }
}
