//! Structures of the actions on network ACLs.

use crate::api::shapes::common::{Filter, Tag};
use crate::api::wire::shapes;

shapes! {
    /// Request of DescribeNetworkAcls.
    input DescribeNetworkAclsRequest {
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
        /// Network acl ids.
        network_acl_ids: Vec<String> = "NetworkAclId",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeNetworkAcls.
    output DescribeNetworkAclsResult {
        /// Network acls.
        network_acls: Vec<NetworkAclView> = "networkAclSet",
        /// Next token.
        next_token: Option<String> = "nextToken",
    }
    /// `NetworkAcl`, in answers.
    output NetworkAclView {
        /// Associations.
        associations: Vec<NetworkAclAssociationView> = "associationSet",
        /// Entries.
        entries: Vec<NetworkAclEntryView> = "entrySet",
        /// Is default.
        is_default: Option<bool> = "default",
        /// Network acl id.
        network_acl_id: Option<String> = "networkAclId",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
        /// Owner id.
        owner_id: Option<String> = "ownerId",
    }
    /// `NetworkAclAssociation`, in answers.
    output NetworkAclAssociationView {
        /// Network acl association id.
        network_acl_association_id: Option<String> = "networkAclAssociationId",
        /// Network acl id.
        network_acl_id: Option<String> = "networkAclId",
        /// Subnet id.
        subnet_id: Option<String> = "subnetId",
    }
    /// `NetworkAclEntry`, in answers.
    output NetworkAclEntryView {
        /// Cidr block.
        cidr_block: Option<String> = "cidrBlock",
        /// Egress.
        egress: Option<bool> = "egress",
        /// Ipv6 cidr block.
        ipv6_cidr_block: Option<String> = "ipv6CidrBlock",
        /// Port range.
        port_range: Option<PortRangeView> = "portRange",
        /// Protocol.
        protocol: Option<String> = "protocol",
        /// Rule action.
        rule_action: Option<String> = "ruleAction",
        /// Rule number.
        rule_number: Option<i32> = "ruleNumber",
    }
    /// `PortRange`, in answers.
    output PortRangeView {
        /// From port.
        from_port: Option<i32> = "from",
        /// To port.
        to_port: Option<i32> = "to",
    }
}
