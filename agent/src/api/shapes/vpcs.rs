//! Structures of the actions on VPCs.

use crate::api::shapes::common::{
    AttributeBooleanValue, BooleanValue, Filter, Tag, TagSpecification,
};
use crate::api::wire::shapes;

shapes! {
    /// Request of CreateVpc.
    input CreateVpcRequest {
        /// Cidr block.
        cidr_block: Option<String> = "CidrBlock",
        /// Ipv6 cidr block.
        ipv6_cidr_block: Option<String> = "Ipv6CidrBlock",
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
        /// Instance tenancy.
        instance_tenancy: Option<String> = "InstanceTenancy",
        /// Amazon provided ipv6 cidr block.
        amazon_provided_ipv6_cidr_block: Option<bool> = "AmazonProvidedIpv6CidrBlock",
    }
    /// Answer of CreateVpc.
    output CreateVpcResult {
        /// Vpc.
        vpc: Option<VpcView> = "vpc",
    }
    /// `Vpc`, in answers.
    output VpcView {
        /// Owner id.
        owner_id: Option<String> = "ownerId",
        /// Instance tenancy.
        instance_tenancy: Option<String> = "instanceTenancy",
        /// Ipv6 cidr block association set.
        ipv6_cidr_block_association_set: Vec<VpcIpv6CidrBlockAssociationView> = "ipv6CidrBlockAssociationSet",
        /// Cidr block association set.
        cidr_block_association_set: Vec<VpcCidrBlockAssociationView> = "cidrBlockAssociationSet",
        /// Is default.
        is_default: Option<bool> = "isDefault",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
        /// State.
        state: Option<String> = "state",
        /// Cidr block.
        cidr_block: Option<String> = "cidrBlock",
        /// Dhcp options id.
        dhcp_options_id: Option<String> = "dhcpOptionsId",
    }
    /// `VpcIpv6CidrBlockAssociation`, in answers.
    output VpcIpv6CidrBlockAssociationView {
        /// Association id.
        association_id: Option<String> = "associationId",
        /// Ipv6 cidr block.
        ipv6_cidr_block: Option<String> = "ipv6CidrBlock",
        /// Network border group.
        network_border_group: Option<String> = "networkBorderGroup",
        /// Ipv6 pool.
        ipv6_pool: Option<String> = "ipv6Pool",
    }
    /// `VpcCidrBlockAssociation`, in answers.
    output VpcCidrBlockAssociationView {
        /// Association id.
        association_id: Option<String> = "associationId",
        /// Cidr block.
        cidr_block: Option<String> = "cidrBlock",
        /// Cidr block state.
        cidr_block_state: Option<VpcCidrBlockStateView> = "cidrBlockState",
    }
    /// `VpcCidrBlockState`, in answers.
    output VpcCidrBlockStateView {
        /// State.
        state: Option<String> = "state",
    }
    /// Request of CreateDefaultVpc.
    input CreateDefaultVpcRequest {

    }
    /// Answer of CreateDefaultVpc.
    output CreateDefaultVpcResult {
        /// Vpc.
        vpc: Option<VpcView> = "vpc",
    }
    /// Request of DeleteVpc.
    input DeleteVpcRequest {
        /// Vpc id.
        vpc_id: String = "VpcId",
    }
    /// Request of DescribeVpcs.
    input DescribeVpcsRequest {
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Vpc ids.
        vpc_ids: Vec<String> = "VpcId",
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
    }
    /// Answer of DescribeVpcs.
    output DescribeVpcsResult {
        /// Next token.
        next_token: Option<String> = "nextToken",
        /// Vpcs.
        vpcs: Vec<VpcView> = "vpcSet",
    }
    /// Request of DescribeVpcAttribute.
    input DescribeVpcAttributeRequest {
        /// Attribute.
        attribute: String = "Attribute",
        /// Vpc id.
        vpc_id: String = "VpcId",
    }
    /// Answer of DescribeVpcAttribute.
    output DescribeVpcAttributeResult {
        /// Enable dns hostnames.
        enable_dns_hostnames: Option<AttributeBooleanValue> = "enableDnsHostnames",
        /// Enable dns support.
        enable_dns_support: Option<AttributeBooleanValue> = "enableDnsSupport",
        /// Enable network address usage metrics.
        enable_network_address_usage_metrics: Option<AttributeBooleanValue> = "enableNetworkAddressUsageMetrics",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
    }
    /// Request of ModifyVpcAttribute.
    input ModifyVpcAttributeRequest {
        /// Enable dns hostnames.
        enable_dns_hostnames: Option<BooleanValue> = "EnableDnsHostnames",
        /// Enable dns support.
        enable_dns_support: Option<BooleanValue> = "EnableDnsSupport",
        /// Vpc id.
        vpc_id: String = "VpcId",
        /// Enable network address usage metrics.
        enable_network_address_usage_metrics: Option<BooleanValue> = "EnableNetworkAddressUsageMetrics",
    }
}
