//! Structures of the actions on network interfaces.

use crate::api::shapes::common::{
    AttributeBooleanValue, AttributeValue, BooleanValue, Filter, StringValue, Tag, TagSpecification,
};
use crate::api::wire::{Timestamp, shapes};

shapes! {
    /// Request of CreateNetworkInterface.
    input CreateNetworkInterfaceRequest {
        /// Interface type.
        interface_type: Option<String> = "InterfaceType",
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
        /// Client token.
        client_token: Option<String> = "ClientToken",
        /// Subnet id.
        subnet_id: String = "SubnetId",
        /// Description.
        description: Option<String> = "Description",
        /// Private ip address.
        private_ip_address: Option<String> = "PrivateIpAddress",
        /// Groups.
        groups: Vec<String> = "SecurityGroupId",
        /// Private ip addresses.
        private_ip_addresses: Vec<PrivateIpAddressSpecificationInput> = "PrivateIpAddresses",
        /// Secondary private ip address count.
        secondary_private_ip_address_count: Option<i32> = "SecondaryPrivateIpAddressCount",
        /// Ipv6 addresses.
        ipv6_addresses: Vec<InstanceIpv6AddressInput> = "Ipv6Addresses",
        /// Ipv6 address count.
        ipv6_address_count: Option<i32> = "Ipv6AddressCount",
    }
    /// `PrivateIpAddressSpecification`, in requests.
    input PrivateIpAddressSpecificationInput {
        /// Primary.
        primary: Option<bool> = "Primary",
        /// Private ip address.
        private_ip_address: Option<String> = "PrivateIpAddress",
    }
    /// `InstanceIpv6Address`, in requests.
    input InstanceIpv6AddressInput {
        /// Ipv6 address.
        ipv6_address: Option<String> = "Ipv6Address",
    }
    /// Answer of CreateNetworkInterface.
    output CreateNetworkInterfaceResult {
        /// Network interface.
        network_interface: Option<NetworkInterfaceView> = "networkInterface",
        /// Client token.
        client_token: Option<String> = "clientToken",
    }
    /// `NetworkInterface`, in answers.
    output NetworkInterfaceView {
        /// Association.
        association: Option<NetworkInterfaceAssociationView> = "association",
        /// Attachment.
        attachment: Option<NetworkInterfaceAttachmentView> = "attachment",
        /// Availability zone.
        availability_zone: Option<String> = "availabilityZone",
        /// Description.
        description: Option<String> = "description",
        /// Groups.
        groups: Vec<GroupIdentifierView> = "groupSet",
        /// Interface type.
        interface_type: Option<String> = "interfaceType",
        /// Ipv6 addresses.
        ipv6_addresses: Vec<NetworkInterfaceIpv6AddressView> = "ipv6AddressesSet",
        /// Mac address.
        mac_address: Option<String> = "macAddress",
        /// Network interface id.
        network_interface_id: Option<String> = "networkInterfaceId",
        /// Owner id.
        owner_id: Option<String> = "ownerId",
        /// Private dns name.
        private_dns_name: Option<String> = "privateDnsName",
        /// Public dns name.
        public_dns_name: Option<String> = "publicDnsName",
        /// Private ip address.
        private_ip_address: Option<String> = "privateIpAddress",
        /// Private ip addresses.
        private_ip_addresses: Vec<NetworkInterfacePrivateIpAddressView> = "privateIpAddressesSet",
        /// Requester managed.
        requester_managed: Option<bool> = "requesterManaged",
        /// Source dest check.
        source_dest_check: Option<bool> = "sourceDestCheck",
        /// Status.
        status: Option<String> = "status",
        /// Subnet id.
        subnet_id: Option<String> = "subnetId",
        /// Tag set.
        tag_set: Vec<Tag> = "tagSet",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
        /// Ipv6 native.
        ipv6_native: Option<bool> = "ipv6Native",
        /// Ipv6 address.
        ipv6_address: Option<String> = "ipv6Address",
        /// Availability zone id.
        availability_zone_id: Option<String> = "availabilityZoneId",
    }
    /// `NetworkInterfaceAssociation`, in answers.
    output NetworkInterfaceAssociationView {
        /// Allocation id.
        allocation_id: Option<String> = "allocationId",
        /// Association id.
        association_id: Option<String> = "associationId",
        /// Ip owner id.
        ip_owner_id: Option<String> = "ipOwnerId",
        /// Public dns name.
        public_dns_name: Option<String> = "publicDnsName",
        /// Public ip.
        public_ip: Option<String> = "publicIp",
    }
    /// `NetworkInterfaceAttachment`, in answers.
    output NetworkInterfaceAttachmentView {
        /// Attach time.
        attach_time: Option<Timestamp> = "attachTime",
        /// Attachment id.
        attachment_id: Option<String> = "attachmentId",
        /// Delete on termination.
        delete_on_termination: Option<bool> = "deleteOnTermination",
        /// Device index.
        device_index: Option<i32> = "deviceIndex",
        /// Network card index.
        network_card_index: Option<i32> = "networkCardIndex",
        /// Instance id.
        instance_id: Option<String> = "instanceId",
        /// Instance owner id.
        instance_owner_id: Option<String> = "instanceOwnerId",
        /// Status.
        status: Option<String> = "status",
    }
    /// `GroupIdentifier`, in answers.
    output GroupIdentifierView {
        /// Group id.
        group_id: Option<String> = "groupId",
        /// Group name.
        group_name: Option<String> = "groupName",
    }
    /// `NetworkInterfaceIpv6Address`, in answers.
    output NetworkInterfaceIpv6AddressView {
        /// Ipv6 address.
        ipv6_address: Option<String> = "ipv6Address",
    }
    /// `NetworkInterfacePrivateIpAddress`, in answers.
    output NetworkInterfacePrivateIpAddressView {
        /// Association.
        association: Option<NetworkInterfaceAssociationView> = "association",
        /// Primary.
        primary: Option<bool> = "primary",
        /// Private dns name.
        private_dns_name: Option<String> = "privateDnsName",
        /// Private ip address.
        private_ip_address: Option<String> = "privateIpAddress",
    }
    /// Request of DeleteNetworkInterface.
    input DeleteNetworkInterfaceRequest {
        /// Network interface id.
        network_interface_id: String = "NetworkInterfaceId",
    }
    /// Request of DescribeNetworkInterfaces.
    input DescribeNetworkInterfacesRequest {
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
        /// Network interface ids.
        network_interface_ids: Vec<String> = "NetworkInterfaceId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeNetworkInterfaces.
    output DescribeNetworkInterfacesResult {
        /// Network interfaces.
        network_interfaces: Vec<NetworkInterfaceView> = "networkInterfaceSet",
        /// Next token.
        next_token: Option<String> = "nextToken",
    }
    /// Request of AttachNetworkInterface.
    input AttachNetworkInterfaceRequest {
        /// Network card index.
        network_card_index: Option<i32> = "NetworkCardIndex",
        /// Network interface id.
        network_interface_id: String = "NetworkInterfaceId",
        /// Instance id.
        instance_id: String = "InstanceId",
        /// Device index.
        device_index: i32 = "DeviceIndex",
    }
    /// Answer of AttachNetworkInterface.
    output AttachNetworkInterfaceResult {
        /// Attachment id.
        attachment_id: Option<String> = "attachmentId",
        /// Network card index.
        network_card_index: Option<i32> = "networkCardIndex",
    }
    /// Request of DetachNetworkInterface.
    input DetachNetworkInterfaceRequest {
        /// Attachment id.
        attachment_id: String = "AttachmentId",
        /// Force.
        force: Option<bool> = "Force",
    }
    /// Request of DescribeNetworkInterfaceAttribute.
    input DescribeNetworkInterfaceAttributeRequest {
        /// Network interface id.
        network_interface_id: String = "NetworkInterfaceId",
        /// Attribute.
        attribute: Option<String> = "Attribute",
    }
    /// Answer of DescribeNetworkInterfaceAttribute.
    output DescribeNetworkInterfaceAttributeResult {
        /// Attachment.
        attachment: Option<NetworkInterfaceAttachmentView> = "attachment",
        /// Description.
        description: Option<AttributeValue> = "description",
        /// Groups.
        groups: Vec<GroupIdentifierView> = "groupSet",
        /// Network interface id.
        network_interface_id: Option<String> = "networkInterfaceId",
        /// Source dest check.
        source_dest_check: Option<AttributeBooleanValue> = "sourceDestCheck",
        /// Associate public ip address.
        associate_public_ip_address: Option<bool> = "associatePublicIpAddress",
    }
    /// Request of ModifyNetworkInterfaceAttribute.
    input ModifyNetworkInterfaceAttributeRequest {
        /// Associate public ip address.
        associate_public_ip_address: Option<bool> = "AssociatePublicIpAddress",
        /// Network interface id.
        network_interface_id: String = "NetworkInterfaceId",
        /// Description.
        description: Option<StringValue> = "Description",
        /// Source dest check.
        source_dest_check: Option<BooleanValue> = "SourceDestCheck",
        /// Groups.
        groups: Vec<String> = "SecurityGroupId",
        /// Attachment.
        attachment: Option<NetworkInterfaceAttachmentChangesInput> = "Attachment",
    }
    /// `NetworkInterfaceAttachmentChanges`, in requests.
    input NetworkInterfaceAttachmentChangesInput {
        /// Attachment id.
        attachment_id: Option<String> = "AttachmentId",
        /// Delete on termination.
        delete_on_termination: Option<bool> = "DeleteOnTermination",
    }
    /// Request of AssignPrivateIpAddresses.
    input AssignPrivateIpAddressesRequest {
        /// Network interface id.
        network_interface_id: String = "NetworkInterfaceId",
        /// Private ip addresses.
        private_ip_addresses: Vec<String> = "PrivateIpAddress",
        /// Secondary private ip address count.
        secondary_private_ip_address_count: Option<i32> = "SecondaryPrivateIpAddressCount",
        /// Allow reassignment.
        allow_reassignment: Option<bool> = "AllowReassignment",
    }
    /// Answer of AssignPrivateIpAddresses.
    output AssignPrivateIpAddressesResult {
        /// Network interface id.
        network_interface_id: Option<String> = "networkInterfaceId",
        /// Assigned private ip addresses.
        assigned_private_ip_addresses: Vec<AssignedPrivateIpAddressView> = "assignedPrivateIpAddressesSet",
    }
    /// `AssignedPrivateIpAddress`, in answers.
    output AssignedPrivateIpAddressView {
        /// Private ip address.
        private_ip_address: Option<String> = "privateIpAddress",
    }
    /// Request of UnassignPrivateIpAddresses.
    input UnassignPrivateIpAddressesRequest {
        /// Network interface id.
        network_interface_id: String = "NetworkInterfaceId",
        /// Private ip addresses.
        private_ip_addresses: Vec<String> = "PrivateIpAddress",
    }
}
