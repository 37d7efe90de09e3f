//! What the API has promised: the resources that its answers told of, and what each request makes of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::agent::{Fields, fields};
use crate::xml::Element;

/// Image of every launch.
const IMAGE: &str = "ami-0cb00000000000001";

/// What there is. One is made of answers as they come, another of what is shown after the crash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) instances: BTreeMap<String, Instance>,
    /// Volumes and who has them.
    pub(crate) volumes: BTreeMap<String, Option<String>>,
    pub(crate) interfaces: BTreeMap<String, Option<Place>>,
    pub(crate) addresses: BTreeMap<String, Address>,
    /// Route tables that are no VPC's main one.
    pub(crate) tables: BTreeSet<String>,
    pub(crate) tags: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) token: String,
    pub(crate) reservation: String,
    /// Where it comes to rest.
    pub(crate) state: String,
    /// Its volumes, and whether they go with it.
    pub(crate) volumes: BTreeMap<String, bool>,
}

/// An interface's place at an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) instance: String,
    pub(crate) index: String,
    pub(crate) goes: bool,
    pub(crate) attachment: String,
}

/// An Elastic IP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: String,
    pub(crate) interface: Option<String>,
}

/// Where all of it is.
#[derive(Debug, Clone)]
pub(crate) struct Ground {
    pub(crate) vpc: String,
    pub(crate) subnet: String,
}

/// A request that changes something.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    Run {
        token: String,
        count: usize,
        keep: bool,
    },
    /// StartInstances and its like.
    Change {
        action: &'static str,
        ids: Vec<String>,
    },
    Tag {
        id: String,
        key: String,
        value: String,
    },
    Allocate,
    Associate {
        allocation: String,
        interface: String,
    },
    Disassociate {
        allocation: String,
        ip: String,
    },
    Release {
        allocation: String,
    },
    MakeInterface {
        token: String,
    },
    Attach {
        interface: String,
        instance: String,
        index: String,
    },
    Detach {
        interface: String,
        attachment: String,
    },
    DeleteInterface {
        interface: String,
    },
    MakeTable {
        token: String,
    },
}

/// The tag that every launch gives its instances.
const LAUNCHED: (&str, &str) = ("launched", "by the test");

impl Op {
    /// The action and its parameters.
    pub(crate) fn request(&self, ground: &Ground) -> (&'static str, Fields) {
        let (vpc, subnet) = (ground.vpc.as_str(), ground.subnet.as_str());
        match self {
            Self::Run { token, count, keep } => {
                let count = count.to_string();
                let mut all = vec![
                    ("ImageId", IMAGE),
                    ("InstanceType", "t3.micro"),
                    ("MinCount", &count),
                    ("MaxCount", &count),
                    ("SubnetId", subnet),
                    ("ClientToken", token),
                    ("TagSpecification.1.ResourceType", "instance"),
                    ("TagSpecification.1.Tag.1.Key", LAUNCHED.0),
                    ("TagSpecification.1.Tag.1.Value", LAUNCHED.1),
                ];
                if *keep {
                    all.extend([
                        ("BlockDeviceMapping.1.DeviceName", "/dev/sdf"),
                        ("BlockDeviceMapping.1.Ebs.VolumeSize", "1"),
                        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "false"),
                    ]);
                }
                ("RunInstances", fields(&all))
            }
            Self::Change { action, ids } => {
                let numbered = |(number, id): (usize, &String)| {
                    (format!("InstanceId.{}", number + 1), id.clone())
                };
                (action, ids.iter().enumerate().map(numbered).collect())
            }
            Self::Tag { id, key, value } => (
                "CreateTags",
                fields(&[
                    ("ResourceId.1", id),
                    ("Tag.1.Key", key),
                    ("Tag.1.Value", value),
                ]),
            ),
            Self::Allocate => ("AllocateAddress", fields(&[("Domain", "vpc")])),
            Self::Associate {
                allocation,
                interface,
            } => (
                "AssociateAddress",
                fields(&[
                    ("AllocationId", allocation),
                    ("NetworkInterfaceId", interface),
                ]),
            ),
            Self::Disassociate { ip, .. } => ("DisassociateAddress", fields(&[("PublicIp", ip)])),
            Self::Release { allocation } => {
                ("ReleaseAddress", fields(&[("AllocationId", allocation)]))
            }
            Self::MakeInterface { token } => (
                "CreateNetworkInterface",
                fields(&[("SubnetId", subnet), ("ClientToken", token)]),
            ),
            Self::Attach {
                interface,
                instance,
                index,
            } => (
                "AttachNetworkInterface",
                fields(&[
                    ("NetworkInterfaceId", interface),
                    ("InstanceId", instance),
                    ("DeviceIndex", index),
                ]),
            ),
            Self::Detach { attachment, .. } => (
                "DetachNetworkInterface",
                fields(&[("AttachmentId", attachment)]),
            ),
            Self::DeleteInterface { interface } => (
                "DeleteNetworkInterface",
                fields(&[("NetworkInterfaceId", interface)]),
            ),
            Self::MakeTable { token } => (
                "CreateRouteTable",
                fields(&[("VpcId", vpc), ("ClientToken", token)]),
            ),
        }
    }

    /// Whether it can be repeated without doing anything twice.
    pub(crate) fn has_token(&self) -> bool {
        matches!(
            self,
            Self::Run { .. } | Self::MakeInterface { .. } | Self::MakeTable { .. }
        )
    }

    /// What an answer to a request with a token says was made.
    pub(crate) fn made(&self, answer: &Element) -> Vec<String> {
        match self {
            Self::Run { .. } => {
                let instances = answer.items("instancesSet").iter();
                instances.map(|one| one.text("instanceId")).collect()
            }
            Self::MakeInterface { .. } => vec![answer.text("networkInterface/networkInterfaceId")],
            Self::MakeTable { .. } => vec![answer.text("routeTable/routeTableId")],
            _ => Vec::new(),
        }
    }

    /// What becomes of the model when it succeeds. Without an answer what it has made is not known, and left out.
    pub(crate) fn apply(&self, model: &mut Model, answer: Option<&Element>) {
        match self {
            Self::Run { token, .. } => {
                for instance in answer.map_or(&[][..], |answer| answer.items("instancesSet")) {
                    let reservation = answer.map_or_else(String::new, |a| a.text("reservationId"));
                    model.launched(instance, token, &reservation);
                }
            }
            Self::Change { action, ids } => {
                for id in ids {
                    match *action {
                        "StopInstances" => model.rest(id, "stopped"),
                        "StartInstances" => model.rest(id, "running"),
                        "TerminateInstances" => model.terminate(id),
                        _ => {}
                    }
                }
            }
            Self::Tag { id, key, value } => {
                let tags = model.tags.entry(id.clone()).or_default();
                tags.insert(key.clone(), value.clone());
            }
            Self::Allocate => {
                if let Some(answer) = answer {
                    let address = Address {
                        ip: answer.text("publicIp"),
                        interface: None,
                    };
                    model.addresses.insert(answer.text("allocationId"), address);
                }
            }
            Self::Associate {
                allocation,
                interface,
            } => {
                if let Some(address) = model.addresses.get_mut(allocation) {
                    address.interface = Some(interface.clone());
                }
            }
            Self::Disassociate { allocation, .. } => {
                if let Some(address) = model.addresses.get_mut(allocation) {
                    address.interface = None;
                }
            }
            Self::Release { allocation } => {
                model.addresses.remove(allocation);
                model.tags.remove(allocation);
            }
            Self::Attach {
                interface,
                instance,
                index,
            } => {
                let place = Place {
                    instance: instance.clone(),
                    index: index.clone(),
                    goes: false,
                    attachment: answer.map_or_else(String::new, |a| a.text("attachmentId")),
                };
                model.interfaces.insert(interface.clone(), Some(place));
            }
            Self::Detach { interface, .. } => {
                model.interfaces.insert(interface.clone(), None);
            }
            Self::DeleteInterface { interface } => model.delete_interface(interface),
            Self::MakeInterface { .. } => {
                let made = answer.map(|answer| self.made(answer)).unwrap_or_default();
                for id in made {
                    model.interfaces.entry(id).or_insert(None);
                }
            }
            Self::MakeTable { .. } => {
                let made = answer.map(|answer| self.made(answer)).unwrap_or_default();
                model.tables.extend(made);
            }
        }
    }
}

/// An interface of an instance, as the instance shows it.
pub(crate) fn place(interface: &Element, instance: &str) -> Place {
    let of = |name: &str| interface.text(&format!("attachment/{name}"));
    Place {
        instance: instance.to_owned(),
        index: of("deviceIndex"),
        goes: of("deleteOnTermination") == "true",
        attachment: of("attachmentId"),
    }
}

/// Volumes of an instance, as the instance shows them, and whether they go with it.
pub(crate) fn volumes(instance: &Element) -> BTreeMap<String, bool> {
    let devices = instance.items("blockDeviceMapping").iter();
    devices
        .map(|device| {
            let goes = device.text("ebs/deleteOnTermination") == "true";
            (device.text("ebs/volumeId"), goes)
        })
        .collect()
}

impl Model {
    fn launched(&mut self, shown: &Element, token: &str, reservation: &str) {
        let id = shown.text("instanceId");
        let instance = Instance {
            token: token.to_owned(),
            reservation: reservation.to_owned(),
            state: "running".to_owned(),
            volumes: volumes(shown),
        };
        for volume in instance.volumes.keys() {
            self.volumes.insert(volume.clone(), Some(id.clone()));
        }
        for interface in shown.items("networkInterfaceSet") {
            let place = place(interface, &id);
            self.interfaces
                .insert(interface.text("networkInterfaceId"), Some(place));
        }
        let tags = BTreeMap::from([(LAUNCHED.0.to_owned(), LAUNCHED.1.to_owned())]);
        self.tags.insert(id.clone(), tags);
        self.instances.insert(id, instance);
    }

    fn rest(&mut self, id: &str, state: &str) {
        if let Some(instance) = self.instances.get_mut(id) {
            state.clone_into(&mut instance.state);
        }
    }

    fn terminate(&mut self, id: &str) {
        self.rest(id, "terminated");
        let Some(instance) = self.instances.get_mut(id) else {
            return;
        };
        for (volume, goes) in std::mem::take(&mut instance.volumes) {
            if goes {
                self.volumes.remove(&volume);
                self.tags.remove(&volume);
            } else {
                self.volumes.insert(volume, None);
            }
        }
        let of = |place: &Option<Place>| place.as_ref().is_some_and(|place| place.instance == id);
        let all: Vec<(String, bool)> = self
            .interfaces
            .iter()
            .filter(|(_, place)| of(place))
            .map(|(id, place)| (id.clone(), place.as_ref().is_some_and(|place| place.goes)))
            .collect();
        for (interface, goes) in all {
            if goes {
                self.delete_interface(&interface);
            } else {
                self.interfaces.insert(interface, None);
            }
        }
    }

    fn delete_interface(&mut self, interface: &str) {
        self.interfaces.remove(interface);
        self.tags.remove(interface);
        for address in self.addresses.values_mut() {
            if address.interface.as_deref() == Some(interface) {
                address.interface = None;
            }
        }
    }

    /// Without what an unanswered request leaves unknown; without terminated instances when they are soon forgotten.
    pub(crate) fn comparable(&self, forgetful: bool) -> Self {
        let mut model = self.clone();
        for place in model.interfaces.values_mut().flatten() {
            place.attachment.clear();
        }
        if forgetful {
            let over = |instance: &Instance| instance.state == "terminated";
            model.instances.retain(|_, instance| !over(instance));
            let there = |id: &String| !id.starts_with("i-") || model.instances.contains_key(id);
            model.tags.retain(|id, _| there(id));
        }
        model.tags.retain(|_, tags| !tags.is_empty());
        model
    }
}
