//! Structures of the actions on Elastic IP addresses.

use crate::api::shapes::common::{Filter, Tag, TagSpecification};
use crate::api::wire::shapes;

shapes! {
    /// Request of AllocateAddress.
    input AllocateAddressRequest {
        /// Domain.
        domain: Option<String> = "Domain",
        /// Address.
        address: Option<String> = "Address",
        /// Public ipv4 pool.
        public_ipv4_pool: Option<String> = "PublicIpv4Pool",
        /// Network border group.
        network_border_group: Option<String> = "NetworkBorderGroup",
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
    }
    /// Answer of AllocateAddress.
    output AllocateAddressResult {
        /// Allocation id.
        allocation_id: Option<String> = "allocationId",
        /// Public ipv4 pool.
        public_ipv4_pool: Option<String> = "publicIpv4Pool",
        /// Network border group.
        network_border_group: Option<String> = "networkBorderGroup",
        /// Domain.
        domain: Option<String> = "domain",
        /// Public ip.
        public_ip: Option<String> = "publicIp",
    }
    /// Request of AssociateAddress.
    input AssociateAddressRequest {
        /// Allocation id.
        allocation_id: Option<String> = "AllocationId",
        /// Instance id.
        instance_id: Option<String> = "InstanceId",
        /// Public ip.
        public_ip: Option<String> = "PublicIp",
        /// Network interface id.
        network_interface_id: Option<String> = "NetworkInterfaceId",
        /// Private ip address.
        private_ip_address: Option<String> = "PrivateIpAddress",
        /// Allow reassociation.
        allow_reassociation: Option<bool> = "AllowReassociation",
    }
    /// Answer of AssociateAddress.
    output AssociateAddressResult {
        /// Association id.
        association_id: Option<String> = "associationId",
    }
    /// Request of DisassociateAddress.
    input DisassociateAddressRequest {
        /// Association id.
        association_id: Option<String> = "AssociationId",
        /// Public ip.
        public_ip: Option<String> = "PublicIp",
    }
    /// Request of ReleaseAddress.
    input ReleaseAddressRequest {
        /// Allocation id.
        allocation_id: Option<String> = "AllocationId",
        /// Public ip.
        public_ip: Option<String> = "PublicIp",
        /// Network border group.
        network_border_group: Option<String> = "NetworkBorderGroup",
    }
    /// Request of DescribeAddresses.
    input DescribeAddressesRequest {
        /// Public ips.
        public_ips: Vec<String> = "PublicIp",
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Allocation ids.
        allocation_ids: Vec<String> = "AllocationId",
    }
    /// Answer of DescribeAddresses.
    output DescribeAddressesResult {
        /// Addresses.
        addresses: Vec<AddressView> = "addressesSet",
    }
    /// `Address`, in answers.
    output AddressView {
        /// Allocation id.
        allocation_id: Option<String> = "allocationId",
        /// Association id.
        association_id: Option<String> = "associationId",
        /// Domain.
        domain: Option<String> = "domain",
        /// Network interface id.
        network_interface_id: Option<String> = "networkInterfaceId",
        /// Network interface owner id.
        network_interface_owner_id: Option<String> = "networkInterfaceOwnerId",
        /// Private ip address.
        private_ip_address: Option<String> = "privateIpAddress",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Public ipv4 pool.
        public_ipv4_pool: Option<String> = "publicIpv4Pool",
        /// Network border group.
        network_border_group: Option<String> = "networkBorderGroup",
        /// Subnet id.
        subnet_id: Option<String> = "subnetId",
        /// Instance id.
        instance_id: Option<String> = "instanceId",
        /// Public ip.
        public_ip: Option<String> = "publicIp",
    }
}
