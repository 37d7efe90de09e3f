//! Structures of the actions on subnets.

use crate::api::shapes::common::{BooleanValue, Filter, Tag, TagSpecification};
use crate::api::wire::shapes;

shapes! {
    /// Request of CreateSubnet.
    input CreateSubnetRequest {
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
        /// Availability zone.
        availability_zone: Option<String> = "AvailabilityZone",
        /// Availability zone id.
        availability_zone_id: Option<String> = "AvailabilityZoneId",
        /// Cidr block.
        cidr_block: Option<String> = "CidrBlock",
        /// Ipv6 cidr block.
        ipv6_cidr_block: Option<String> = "Ipv6CidrBlock",
        /// Vpc id.
        vpc_id: String = "VpcId",
        /// Ipv6 native.
        ipv6_native: Option<bool> = "Ipv6Native",
    }
    /// Answer of CreateSubnet.
    output CreateSubnetResult {
        /// Subnet.
        subnet: Option<SubnetView> = "subnet",
    }
    /// `Subnet`, in answers.
    output SubnetView {
        /// Availability zone id.
        availability_zone_id: Option<String> = "availabilityZoneId",
        /// Owner id.
        owner_id: Option<String> = "ownerId",
        /// Assign ipv6 address on creation.
        assign_ipv6_address_on_creation: Option<bool> = "assignIpv6AddressOnCreation",
        /// Ipv6 cidr block association set.
        ipv6_cidr_block_association_set: Vec<SubnetIpv6CidrBlockAssociationView> = "ipv6CidrBlockAssociationSet",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Subnet arn.
        subnet_arn: Option<String> = "subnetArn",
        /// Enable dns64.
        enable_dns64: Option<bool> = "enableDns64",
        /// Ipv6 native.
        ipv6_native: Option<bool> = "ipv6Native",
        /// Private dns name options on launch.
        private_dns_name_options_on_launch: Option<PrivateDnsNameOptionsOnLaunchView> = "privateDnsNameOptionsOnLaunch",
        /// Subnet id.
        subnet_id: Option<String> = "subnetId",
        /// State.
        state: Option<String> = "state",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
        /// Cidr block.
        cidr_block: Option<String> = "cidrBlock",
        /// Available ip address count.
        available_ip_address_count: Option<i32> = "availableIpAddressCount",
        /// Availability zone.
        availability_zone: Option<String> = "availabilityZone",
        /// Default for az.
        default_for_az: Option<bool> = "defaultForAz",
        /// Map public ip on launch.
        map_public_ip_on_launch: Option<bool> = "mapPublicIpOnLaunch",
    }
    /// `SubnetIpv6CidrBlockAssociation`, in answers.
    output SubnetIpv6CidrBlockAssociationView {
        /// Association id.
        association_id: Option<String> = "associationId",
        /// Ipv6 cidr block.
        ipv6_cidr_block: Option<String> = "ipv6CidrBlock",
    }
    /// `PrivateDnsNameOptionsOnLaunch`, in answers.
    output PrivateDnsNameOptionsOnLaunchView {
        /// Hostname type.
        hostname_type: Option<String> = "hostnameType",
        /// Enable resource name dns a record.
        enable_resource_name_dns_a_record: Option<bool> = "enableResourceNameDnsARecord",
        /// Enable resource name dns aaaa record.
        enable_resource_name_dns_aaaa_record: Option<bool> = "enableResourceNameDnsAAAARecord",
    }
    /// Request of DeleteSubnet.
    input DeleteSubnetRequest {
        /// Subnet id.
        subnet_id: String = "SubnetId",
    }
    /// Request of DescribeSubnets.
    input DescribeSubnetsRequest {
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Subnet ids.
        subnet_ids: Vec<String> = "SubnetId",
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
    }
    /// Answer of DescribeSubnets.
    output DescribeSubnetsResult {
        /// Next token.
        next_token: Option<String> = "nextToken",
        /// Subnets.
        subnets: Vec<SubnetView> = "subnetSet",
    }
    /// Request of ModifySubnetAttribute.
    input ModifySubnetAttributeRequest {
        /// Assign ipv6 address on creation.
        assign_ipv6_address_on_creation: Option<BooleanValue> = "AssignIpv6AddressOnCreation",
        /// Map public ip on launch.
        map_public_ip_on_launch: Option<BooleanValue> = "MapPublicIpOnLaunch",
        /// Subnet id.
        subnet_id: String = "SubnetId",
        /// Enable dns64.
        enable_dns64: Option<BooleanValue> = "EnableDns64",
        /// Private dns hostname type on launch.
        private_dns_hostname_type_on_launch: Option<String> = "PrivateDnsHostnameTypeOnLaunch",
        /// Enable resource name dns a record on launch.
        enable_resource_name_dns_a_record_on_launch: Option<BooleanValue> = "EnableResourceNameDnsARecordOnLaunch",
        /// Enable resource name dns aaaa record on launch.
        enable_resource_name_dns_aaaa_record_on_launch: Option<BooleanValue> = "EnableResourceNameDnsAAAARecordOnLaunch",
    }
}
