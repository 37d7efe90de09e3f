//! VPCs and what is in them: what a region knows of its networks.
//!
//! Nothing here touches the host's network: [`networks()`] tells what it is to be, and the router makes it so.

mod furnish;
mod interface;
mod lookup;
mod names;
mod networks;
mod public;
mod state;

pub use furnish::{
    ANYWHERE, add_vpc, all_out, default_options, furnish, furnish_default_vpc, new_subnet,
    new_table, new_vpc,
};
pub use interface::{
    InterfaceSpec, attach_interface, choose_address, create_interface, delete_interface,
    free_addresses, interfaces_by_instance, interfaces_of, no_interface, release_interfaces,
};
pub use lookup::{
    default_group, default_subnet, default_vpc, main_table, remove_group, resolve_groups,
    route_table_of,
};
pub use names::{private_dns_name, private_domain, public_dns_name, zone_id, zone_prefix};
pub use networks::networks;
pub use public::{
    assign_public, assign_public_again, disassociate, elastic_of, free_public_address,
    leave_address, public_address_at, public_address_of, release_public,
};
pub use state::*;

#[cfg(test)]
mod tests;
