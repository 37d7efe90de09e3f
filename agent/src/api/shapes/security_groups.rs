//! Structures of the actions on security groups.

use crate::api::shapes::common::{Filter, Tag, TagSpecification};
use crate::api::wire::shapes;

shapes! {
    /// Request of CreateSecurityGroup.
    input CreateSecurityGroupRequest {
        /// Description.
        description: String = "GroupDescription",
        /// Group name.
        group_name: String = "GroupName",
        /// Vpc id.
        vpc_id: Option<String> = "VpcId",
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
    }
    /// Answer of CreateSecurityGroup.
    output CreateSecurityGroupResult {
        /// Group id.
        group_id: Option<String> = "groupId",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Security group arn.
        security_group_arn: Option<String> = "securityGroupArn",
    }
    /// Request of DeleteSecurityGroup.
    input DeleteSecurityGroupRequest {
        /// Group id.
        group_id: Option<String> = "GroupId",
        /// Group name.
        group_name: Option<String> = "GroupName",
    }
    /// Answer of DeleteSecurityGroup.
    output DeleteSecurityGroupResult {
        /// Done.
        done: Option<bool> = "return",
        /// Group id.
        group_id: Option<String> = "groupId",
    }
    /// Request of DescribeSecurityGroups.
    input DescribeSecurityGroupsRequest {
        /// Group ids.
        group_ids: Vec<String> = "GroupId",
        /// Group names.
        group_names: Vec<String> = "GroupName",
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
        /// Filters.
        filters: Vec<Filter> = "Filter",
    }
    /// Answer of DescribeSecurityGroups.
    output DescribeSecurityGroupsResult {
        /// Next token.
        next_token: Option<String> = "nextToken",
        /// Security groups.
        security_groups: Vec<SecurityGroupView> = "securityGroupInfo",
    }
    /// `SecurityGroup`, in answers.
    output SecurityGroupView {
        /// Group id.
        group_id: Option<String> = "groupId",
        /// Ip permissions egress.
        ip_permissions_egress: Vec<IpPermissionView> = "ipPermissionsEgress",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
        /// Security group arn.
        security_group_arn: Option<String> = "securityGroupArn",
        /// Owner id.
        owner_id: Option<String> = "ownerId",
        /// Group name.
        group_name: Option<String> = "groupName",
        /// Description.
        description: Option<String> = "groupDescription",
        /// Ip permissions.
        ip_permissions: Vec<IpPermissionView> = "ipPermissions",
    }
    /// `IpPermission`, in answers.
    output IpPermissionView {
        /// Ip protocol.
        ip_protocol: Option<String> = "ipProtocol",
        /// From port.
        from_port: Option<i32> = "fromPort",
        /// To port.
        to_port: Option<i32> = "toPort",
        /// User id group pairs.
        user_id_group_pairs: Vec<UserIdGroupPairView> = "groups",
        /// Ip ranges.
        ip_ranges: Vec<IpRangeView> = "ipRanges",
        /// Ipv6 ranges.
        ipv6_ranges: Vec<Ipv6RangeView> = "ipv6Ranges",
        /// Prefix list ids.
        prefix_list_ids: Vec<PrefixListIdView> = "prefixListIds",
    }
    /// `UserIdGroupPair`, in answers.
    output UserIdGroupPairView {
        /// Description.
        description: Option<String> = "description",
        /// User id.
        user_id: Option<String> = "userId",
        /// Group name.
        group_name: Option<String> = "groupName",
        /// Group id.
        group_id: Option<String> = "groupId",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
    }
    /// `IpRange`, in answers.
    output IpRangeView {
        /// Description.
        description: Option<String> = "description",
        /// Cidr ip.
        cidr_ip: Option<String> = "cidrIp",
    }
    /// `Ipv6Range`, in answers.
    output Ipv6RangeView {
        /// Description.
        description: Option<String> = "description",
        /// Cidr ipv6.
        cidr_ipv6: Option<String> = "cidrIpv6",
    }
    /// `PrefixListId`, in answers.
    output PrefixListIdView {
        /// Description.
        description: Option<String> = "description",
        /// Prefix list id.
        prefix_list_id: Option<String> = "prefixListId",
    }
    /// Request of DescribeSecurityGroupRules.
    input DescribeSecurityGroupRulesRequest {
        /// Filters.
        filters: Vec<Filter> = "Filter",
        /// Security group rule ids.
        security_group_rule_ids: Vec<String> = "SecurityGroupRuleId",
        /// Next token.
        next_token: Option<String> = "NextToken",
        /// Max results.
        max_results: Option<i32> = "MaxResults",
    }
    /// Answer of DescribeSecurityGroupRules.
    output DescribeSecurityGroupRulesResult {
        /// Security group rules.
        security_group_rules: Vec<SecurityGroupRuleView> = "securityGroupRuleSet",
        /// Next token.
        next_token: Option<String> = "nextToken",
    }
    /// `SecurityGroupRule`, in answers.
    output SecurityGroupRuleView {
        /// Security group rule id.
        security_group_rule_id: Option<String> = "securityGroupRuleId",
        /// Group id.
        group_id: Option<String> = "groupId",
        /// Group owner id.
        group_owner_id: Option<String> = "groupOwnerId",
        /// Is egress.
        is_egress: Option<bool> = "isEgress",
        /// Ip protocol.
        ip_protocol: Option<String> = "ipProtocol",
        /// From port.
        from_port: Option<i32> = "fromPort",
        /// To port.
        to_port: Option<i32> = "toPort",
        /// Cidr ipv4.
        cidr_ipv4: Option<String> = "cidrIpv4",
        /// Cidr ipv6.
        cidr_ipv6: Option<String> = "cidrIpv6",
        /// Prefix list id.
        prefix_list_id: Option<String> = "prefixListId",
        /// Referenced group info.
        referenced_group_info: Option<ReferencedSecurityGroupView> = "referencedGroupInfo",
        /// Description.
        description: Option<String> = "description",
        /// Tags.
        tags: Vec<Tag> = "tagSet",
        /// Security group rule arn.
        security_group_rule_arn: Option<String> = "securityGroupRuleArn",
    }
    /// `ReferencedSecurityGroup`, in answers.
    output ReferencedSecurityGroupView {
        /// Group id.
        group_id: Option<String> = "groupId",
        /// User id.
        user_id: Option<String> = "userId",
        /// Vpc id.
        vpc_id: Option<String> = "vpcId",
    }
    /// Request of AuthorizeSecurityGroupIngress.
    input AuthorizeSecurityGroupIngressRequest {
        /// Cidr ip.
        cidr_ip: Option<String> = "CidrIp",
        /// From port.
        from_port: Option<i32> = "FromPort",
        /// Group id.
        group_id: Option<String> = "GroupId",
        /// Group name.
        group_name: Option<String> = "GroupName",
        /// Ip permissions.
        ip_permissions: Vec<IpPermissionInput> = "IpPermissions",
        /// Ip protocol.
        ip_protocol: Option<String> = "IpProtocol",
        /// Source security group name.
        source_security_group_name: Option<String> = "SourceSecurityGroupName",
        /// Source security group owner id.
        source_security_group_owner_id: Option<String> = "SourceSecurityGroupOwnerId",
        /// To port.
        to_port: Option<i32> = "ToPort",
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
    }
    /// `IpPermission`, in requests.
    input IpPermissionInput {
        /// Ip protocol.
        ip_protocol: Option<String> = "IpProtocol",
        /// From port.
        from_port: Option<i32> = "FromPort",
        /// To port.
        to_port: Option<i32> = "ToPort",
        /// User id group pairs.
        user_id_group_pairs: Vec<UserIdGroupPairInput> = "Groups",
        /// Ip ranges.
        ip_ranges: Vec<IpRangeInput> = "IpRanges",
        /// Ipv6 ranges.
        ipv6_ranges: Vec<Ipv6RangeInput> = "Ipv6Ranges",
        /// Prefix list ids.
        prefix_list_ids: Vec<PrefixListIdInput> = "PrefixListIds",
    }
    /// `UserIdGroupPair`, in requests.
    input UserIdGroupPairInput {
        /// Description.
        description: Option<String> = "Description",
        /// User id.
        user_id: Option<String> = "UserId",
        /// Group name.
        group_name: Option<String> = "GroupName",
        /// Group id.
        group_id: Option<String> = "GroupId",
        /// Vpc id.
        vpc_id: Option<String> = "VpcId",
        /// Vpc peering connection id.
        vpc_peering_connection_id: Option<String> = "VpcPeeringConnectionId",
    }
    /// `IpRange`, in requests.
    input IpRangeInput {
        /// Description.
        description: Option<String> = "Description",
        /// Cidr ip.
        cidr_ip: Option<String> = "CidrIp",
    }
    /// `Ipv6Range`, in requests.
    input Ipv6RangeInput {
        /// Description.
        description: Option<String> = "Description",
        /// Cidr ipv6.
        cidr_ipv6: Option<String> = "CidrIpv6",
    }
    /// `PrefixListId`, in requests.
    input PrefixListIdInput {
        /// Description.
        description: Option<String> = "Description",
        /// Prefix list id.
        prefix_list_id: Option<String> = "PrefixListId",
    }
    /// Answer of AuthorizeSecurityGroupIngress.
    output AuthorizeSecurityGroupIngressResult {
        /// Done.
        done: Option<bool> = "return",
        /// Security group rules.
        security_group_rules: Vec<SecurityGroupRuleView> = "securityGroupRuleSet",
    }
    /// Request of RevokeSecurityGroupIngress.
    input RevokeSecurityGroupIngressRequest {
        /// Cidr ip.
        cidr_ip: Option<String> = "CidrIp",
        /// From port.
        from_port: Option<i32> = "FromPort",
        /// Group id.
        group_id: Option<String> = "GroupId",
        /// Group name.
        group_name: Option<String> = "GroupName",
        /// Ip permissions.
        ip_permissions: Vec<IpPermissionInput> = "IpPermissions",
        /// Ip protocol.
        ip_protocol: Option<String> = "IpProtocol",
        /// Source security group name.
        source_security_group_name: Option<String> = "SourceSecurityGroupName",
        /// Source security group owner id.
        source_security_group_owner_id: Option<String> = "SourceSecurityGroupOwnerId",
        /// To port.
        to_port: Option<i32> = "ToPort",
        /// Security group rule ids.
        security_group_rule_ids: Vec<String> = "SecurityGroupRuleId",
    }
    /// Answer of RevokeSecurityGroupIngress.
    output RevokeSecurityGroupIngressResult {
        /// Done.
        done: Option<bool> = "return",
        /// Unknown ip permissions.
        unknown_ip_permissions: Vec<IpPermissionView> = "unknownIpPermissionSet",
        /// Revoked security group rules.
        revoked_security_group_rules: Vec<RevokedSecurityGroupRuleView> = "revokedSecurityGroupRuleSet",
    }
    /// `RevokedSecurityGroupRule`, in answers.
    output RevokedSecurityGroupRuleView {
        /// Security group rule id.
        security_group_rule_id: Option<String> = "securityGroupRuleId",
        /// Group id.
        group_id: Option<String> = "groupId",
        /// Is egress.
        is_egress: Option<bool> = "isEgress",
        /// Ip protocol.
        ip_protocol: Option<String> = "ipProtocol",
        /// From port.
        from_port: Option<i32> = "fromPort",
        /// To port.
        to_port: Option<i32> = "toPort",
        /// Cidr ipv4.
        cidr_ipv4: Option<String> = "cidrIpv4",
        /// Cidr ipv6.
        cidr_ipv6: Option<String> = "cidrIpv6",
        /// Prefix list id.
        prefix_list_id: Option<String> = "prefixListId",
        /// Referenced group id.
        referenced_group_id: Option<String> = "referencedGroupId",
        /// Description.
        description: Option<String> = "description",
    }
    /// Request of AuthorizeSecurityGroupEgress.
    input AuthorizeSecurityGroupEgressRequest {
        /// Tag specifications.
        tag_specifications: Vec<TagSpecification> = "TagSpecification",
        /// Group id.
        group_id: String = "GroupId",
        /// Source security group name.
        source_security_group_name: Option<String> = "SourceSecurityGroupName",
        /// Source security group owner id.
        source_security_group_owner_id: Option<String> = "SourceSecurityGroupOwnerId",
        /// Ip protocol.
        ip_protocol: Option<String> = "IpProtocol",
        /// From port.
        from_port: Option<i32> = "FromPort",
        /// To port.
        to_port: Option<i32> = "ToPort",
        /// Cidr ip.
        cidr_ip: Option<String> = "CidrIp",
        /// Ip permissions.
        ip_permissions: Vec<IpPermissionInput> = "IpPermissions",
    }
    /// Request of RevokeSecurityGroupEgress.
    input RevokeSecurityGroupEgressRequest {
        /// Security group rule ids.
        security_group_rule_ids: Vec<String> = "SecurityGroupRuleId",
        /// Group id.
        group_id: String = "GroupId",
        /// Source security group name.
        source_security_group_name: Option<String> = "SourceSecurityGroupName",
        /// Source security group owner id.
        source_security_group_owner_id: Option<String> = "SourceSecurityGroupOwnerId",
        /// Ip protocol.
        ip_protocol: Option<String> = "IpProtocol",
        /// From port.
        from_port: Option<i32> = "FromPort",
        /// To port.
        to_port: Option<i32> = "ToPort",
        /// Cidr ip.
        cidr_ip: Option<String> = "CidrIp",
        /// Ip permissions.
        ip_permissions: Vec<IpPermissionInput> = "IpPermissions",
    }
    /// Request of UpdateSecurityGroupRuleDescriptionsIngress.
    input UpdateSecurityGroupRuleDescriptionsIngressRequest {
        /// Group id.
        group_id: Option<String> = "GroupId",
        /// Group name.
        group_name: Option<String> = "GroupName",
        /// Ip permissions.
        ip_permissions: Vec<IpPermissionInput> = "IpPermissions",
        /// Security group rule descriptions.
        security_group_rule_descriptions: Vec<SecurityGroupRuleDescriptionInput> = "SecurityGroupRuleDescription",
    }
    /// `SecurityGroupRuleDescription`, in requests.
    input SecurityGroupRuleDescriptionInput {
        /// Security group rule id.
        security_group_rule_id: Option<String> = "SecurityGroupRuleId",
        /// Description.
        description: Option<String> = "Description",
    }
    /// Answer of UpdateSecurityGroupRuleDescriptionsIngress.
    output UpdateSecurityGroupRuleDescriptionsIngressResult {
        /// Done.
        done: Option<bool> = "return",
    }
    /// Request of ModifySecurityGroupRules.
    input ModifySecurityGroupRulesRequest {
        /// The group.
        group_id: String = "GroupId",
        /// What its rules shall be.
        security_group_rules: Vec<SecurityGroupRuleUpdateInput> = "SecurityGroupRule",
    }
    /// `SecurityGroupRuleUpdate`, in requests.
    input SecurityGroupRuleUpdateInput {
        /// The rule.
        security_group_rule_id: String = "SecurityGroupRuleId",
        /// What it shall be.
        security_group_rule: Option<SecurityGroupRuleRequestInput> = "SecurityGroupRule",
    }
    /// `SecurityGroupRuleRequest`, in requests.
    input SecurityGroupRuleRequestInput {
        /// Protocol.
        ip_protocol: Option<String> = "IpProtocol",
        /// First port, or ICMP type.
        from_port: Option<i32> = "FromPort",
        /// Last port, or ICMP code.
        to_port: Option<i32> = "ToPort",
        /// Addresses.
        cidr_ipv4: Option<String> = "CidrIpv4",
        /// Addresses.
        cidr_ipv6: Option<String> = "CidrIpv6",
        /// Prefix list.
        prefix_list_id: Option<String> = "PrefixListId",
        /// Security group.
        referenced_group_id: Option<String> = "ReferencedGroupId",
        /// What it is for.
        description: Option<String> = "Description",
    }
    /// Answer of ModifySecurityGroupRules.
    output ModifySecurityGroupRulesResult {
        /// Done.
        done: Option<bool> = "return",
    }
}
