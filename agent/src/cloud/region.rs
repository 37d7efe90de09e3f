//! One region's resources.

use super::Identity;
use super::instance::Instance;
use super::net::{Address, NetworkInterface};
use super::table::{AnyTable, Change, Resource, Table, Tags};
use crate::api::ApiError;

macro_rules! region {
    ($( $(#[$meta:meta])* $field:ident: $type:ty, )*) => {
        /// All resources of a region.
        #[derive(Debug)]
        pub struct Region {
            /// `us-east-1`.
            pub name: String,
            $( $(#[$meta])* pub $field: Table<$type>, )*
        }

        impl Region {
            /// A region without anything in it.
            #[must_use]
            pub fn new(name: &str) -> Self {
                Self { name: name.to_owned(), $( $field: Table::default(), )* }
            }

            fn all_tables(&self) -> Vec<&dyn AnyTable> {
                vec![$( &self.$field, )*]
            }

            fn tables(&mut self) -> Vec<&mut dyn AnyTable> {
                vec![$( &mut self.$field, )*]
            }

            pub(super) fn changes(&self) -> Result<Vec<(&'static str, Change)>, ApiError> {
                let mut all = Vec::new();
                $( all.extend(self.$field.changes()?.into_iter().map(|change| (<$type as Resource>::KIND, change))); )*
                Ok(all)
            }
        }
    };
}

region! {
    /// Key pairs.
    key_pairs: crate::api::ops::key_pairs::KeyPair,
    /// VPCs.
    vpcs: super::net::Vpc,
    /// Subnets.
    subnets: super::net::Subnet,
    /// Internet gateways.
    internet_gateways: super::net::InternetGateway,
    /// Route tables.
    route_tables: super::net::RouteTable,
    /// Security groups.
    security_groups: super::net::SecurityGroup,
    /// Rules of security groups.
    security_group_rules: super::net::SecurityGroupRule,
    /// DHCP option sets.
    dhcp_options: super::net::DhcpOptions,
    /// Network interfaces.
    interfaces: NetworkInterface,
    /// Elastic IP addresses.
    addresses: Address,
    /// Network ACLs.
    network_acls: super::net::NetworkAcl,
    /// Instances, those lately terminated too.
    instances: Instance,
    /// Volumes.
    volumes: super::instance::Volume,
    /// What the API says of images beyond what the image store knows.
    images: crate::api::ops::images::ImageState,
}

impl Region {
    /// Takes in a row of the database.
    pub(super) fn load(&mut self, kind: &str, document: &str) -> Result<(), String> {
        let mut tables = self.tables();
        let Some(table) = tables.iter_mut().find(|table| table.kind() == kind) else {
            return Err("this cumulet does not know this kind of resource".to_owned());
        };
        table.load(document).map_err(|error| error.to_string())
    }

    pub(super) fn keep(&mut self) {
        for table in self.tables() {
            table.keep();
        }
    }

    pub(super) fn roll_back(&mut self) {
        for table in self.tables() {
            table.roll_back();
        }
    }

    /// Whether there is nothing in it: no region is left so that was made whole.
    pub(super) fn is_empty(&self) -> bool {
        self.all_tables().iter().all(|table| table.is_empty())
    }

    /// The instances that these changes are about: their own records, their interfaces, addresses of those.
    pub(super) fn touched(&self, changes: &[(&'static str, Change)]) -> Vec<String> {
        let of_interface = |id: &str| {
            let attachment = self.interfaces.get(id)?.attachment.as_ref()?;
            Some(attachment.instance_id.clone())
        };
        let mut touched = Vec::new();
        for (kind, (id, _)) in changes {
            match *kind {
                Instance::KIND => touched.push(id.clone()),
                NetworkInterface::KIND => touched.extend(of_interface(id)),
                // Who had the address before is not known any more; looking at all of them does no harm.
                Address::KIND => {
                    let ids = self.interfaces.iter().map(|eni| &eni.network_interface_id);
                    touched.extend(ids.filter_map(|id| of_interface(id)));
                }
                _ => {}
            }
        }
        touched.sort();
        touched.dedup();
        touched
    }

    /// Every resource that has tags: kind, id, tags.
    #[must_use]
    pub fn tagged(&self) -> Vec<(&'static str, &str, &Tags)> {
        let tables = self.all_tables();
        tables
            .into_iter()
            .flat_map(|table| {
                let kind = table.kind();
                table
                    .tagged()
                    .into_iter()
                    .map(move |(id, tags)| (kind, id, tags))
            })
            .collect()
    }

    /// The tags of the resource with this id, to be changed.
    pub fn edit_tags(&mut self, resource_id: &str) -> Option<&mut Tags> {
        let tables = self.tables();
        tables
            .into_iter()
            .find_map(|table| table.edit_tags(resource_id))
    }

    /// Makes what every new region has: the default VPC.
    pub(super) fn furnish(&mut self, identity: &Identity) {
        super::net::furnish(self, identity);
    }
}
