use super::super::network_tests::{Talk, part};

fn group(talk: &Talk, name: &str) -> String {
    talk.get(
        &format!("CreateSecurityGroup GroupName={name} GroupDescription=test"),
        "groupId",
    )
}

const SSH: &str = "IpProtocol=tcp FromPort=22 ToPort=22 CidrIp=0.0.0.0/0";
const SSH_STRUCTURE: &str = "IpPermissions.1.IpProtocol=6 IpPermissions.1.FromPort=22 IpPermissions.1.ToPort=22 IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0";

#[test]
fn groups_have_a_name_of_their_own_and_the_default_one_stays() {
    let talk = Talk::new();
    let id = group(&talk, "web");
    let again = "CreateSecurityGroup GroupName=web GroupDescription=x";
    assert_eq!(talk.no(again), "InvalidGroup.Duplicate");
    let default = "CreateSecurityGroup GroupName=default GroupDescription=x";
    assert_eq!(talk.no(default), "InvalidGroup.Reserved");
    assert_eq!(
        talk.no("DeleteSecurityGroup GroupName=default"),
        "CannotDelete"
    );
    assert_eq!(
        talk.no("DescribeSecurityGroups GroupName.1=none"),
        "InvalidGroup.NotFound"
    );
    talk.say(&format!("DeleteSecurityGroup GroupId={id}"))
        .unwrap();
    assert_eq!(
        talk.no(&format!("DeleteSecurityGroup GroupId={id}")),
        "InvalidGroup.NotFound"
    );
}

#[test]
fn the_same_rule_in_both_forms_is_one_rule() {
    let talk = Talk::new();
    let id = group(&talk, "web");
    let allow = format!("AuthorizeSecurityGroupIngress GroupId={id}");
    let deny = format!("RevokeSecurityGroupIngress GroupId={id}");
    talk.say(&format!("{allow} {SSH}")).unwrap();
    let error = talk.say(&format!("{allow} {SSH_STRUCTURE}")).unwrap_err();
    assert_eq!(error.code, "InvalidPermission.Duplicate");
    assert!(
        error
            .message
            .contains("peer: 0.0.0.0/0, TCP, from port: 22")
    );
    talk.say(&format!("{deny} {SSH_STRUCTURE}")).unwrap();
    let gone = talk.no(&format!("{deny} {SSH}"));
    assert_eq!(gone, "InvalidPermission.NotFound");
    let rule = talk.get(&format!("{allow} {SSH_STRUCTURE}"), "securityGroupRuleId");
    talk.say(&format!("{deny} {SSH}")).unwrap();
    let by_id = talk.no(&format!("{deny} SecurityGroupRuleId.1={rule}"));
    assert_eq!(by_id, "InvalidSecurityGroupRuleId.NotFound");
    let twice = format!("{allow} {SSH_STRUCTURE} IpPermissions.1.IpRanges.2.CidrIp=0.0.0.0/0");
    assert_eq!(talk.no(&twice), "InvalidParameterValue");
    assert_eq!(
        talk.no(&format!("{allow} {SSH} {SSH_STRUCTURE}")),
        "InvalidParameterCombination"
    );
    assert_eq!(talk.no(&allow), "MissingParameter");
}

#[test]
fn rules_that_name_a_group_keep_it() {
    let talk = Talk::new();
    let (web, db) = (group(&talk, "web"), group(&talk, "db"));
    let source = "SourceSecurityGroupName=web";
    talk.say(&format!(
        "AuthorizeSecurityGroupIngress GroupId={db} {source}"
    ))
    .unwrap();
    let shown = talk
        .say(&format!("DescribeSecurityGroups GroupId.1={db}"))
        .unwrap();
    assert!(
        shown.contains(&format!("<groupId>{web}</groupId>")),
        "{shown}"
    );
    let filtered = format!(
        "DescribeSecurityGroups Filter.1.Name=ip-permission.group-id Filter.1.Value.1={web}"
    );
    assert!(talk.say(&filtered).unwrap().contains(&db));
    let delete = format!("DeleteSecurityGroup GroupId={web}");
    assert_eq!(talk.no(&delete), "DependencyViolation");
    talk.say(&format!("RevokeSecurityGroupIngress GroupId={db} {source}"))
        .unwrap();
    // A rule of its own that names it does not hold it.
    talk.say(&format!(
        "AuthorizeSecurityGroupIngress GroupId={web} {source}"
    ))
    .unwrap();
    talk.say(&delete).unwrap();
}

#[test]
fn egress_begins_open_and_can_be_closed() {
    let talk = Talk::new();
    let id = group(&talk, "web");
    let all = "IpPermissions.1.IpProtocol=-1 IpPermissions.1.IpRanges.1.CidrIp=0.0.0.0/0";
    let allow = format!("AuthorizeSecurityGroupEgress GroupId={id} {all}");
    assert_eq!(talk.no(&allow), "InvalidPermission.Duplicate");
    talk.say(&format!("RevokeSecurityGroupEgress GroupId={id} {all}"))
        .unwrap();
    let shown = talk.say(&format!("DescribeSecurityGroups GroupId.1={id}"));
    assert!(shown.unwrap().contains("<ipPermissionsEgress/>"));
    talk.say(&allow).unwrap();
}

#[test]
fn wrong_traffic_is_refused_and_icmp_is_understood() {
    let talk = Talk::new();
    let id = group(&talk, "web");
    let allow = |rest: &str| format!("AuthorizeSecurityGroupIngress GroupId={id} {rest}");
    for wrong in [
        "IpProtocol=tcp FromPort=22 CidrIp=0.0.0.0/0",
        "IpProtocol=tcp FromPort=22 ToPort=21 CidrIp=0.0.0.0/0",
        "IpProtocol=udp FromPort=1 ToPort=65536 CidrIp=0.0.0.0/0",
        "IpProtocol=carrier FromPort=1 ToPort=1 CidrIp=0.0.0.0/0",
        "IpProtocol=tcp FromPort=1 ToPort=1 CidrIp=1.2.3.4",
        "IpProtocol=icmp FromPort=-1 ToPort=0 CidrIp=0.0.0.0/0",
    ] {
        assert_eq!(talk.no(&allow(wrong)), "InvalidParameterValue", "{wrong}");
    }
    let ping = allow("IpProtocol=icmp FromPort=8 ToPort=-1 CidrIp=10.0.0.7/8");
    let shown = talk.say(&ping).unwrap();
    assert_eq!(part(&shown, "cidrIpv4"), "10.0.0.0/8");
    assert_eq!(part(&shown, "fromPort"), "8");
    let six = allow(
        "IpPermissions.1.IpProtocol=tcp IpPermissions.1.FromPort=80 IpPermissions.1.ToPort=80 IpPermissions.1.Ipv6Ranges.1.CidrIpv6=::/0",
    );
    assert_eq!(talk.get(&six, "cidrIpv6"), "::/0");
}

#[test]
fn rules_are_limited() {
    let talk = Talk::new();
    let id = group(&talk, "web");
    for port in 1..=60 {
        talk.say(&format!(
            "AuthorizeSecurityGroupIngress GroupId={id} IpProtocol=tcp FromPort={port} ToPort={port} CidrIp=0.0.0.0/0"
        ))
        .unwrap();
    }
    assert_eq!(
        talk.no(&format!("AuthorizeSecurityGroupIngress GroupId={id} IpProtocol=udp FromPort=1 ToPort=1 CidrIp=0.0.0.0/0")),
        "RulesPerSecurityGroupLimitExceeded"
    );
}

#[test]
fn descriptions_can_be_changed() {
    let talk = Talk::new();
    let id = group(&talk, "web");
    let rule = talk.get(
        &format!("AuthorizeSecurityGroupIngress GroupId={id} {SSH_STRUCTURE} IpPermissions.1.IpRanges.1.Description=home"),
        "securityGroupRuleId",
    );
    let show = format!("DescribeSecurityGroupRules SecurityGroupRuleId.1={rule}");
    assert_eq!(talk.get(&show, "description"), "home");
    let update = format!("UpdateSecurityGroupRuleDescriptionsIngress GroupId={id}");
    talk.say(&format!(
        "{update} {SSH_STRUCTURE} IpPermissions.1.IpRanges.1.Description=work"
    ))
    .unwrap();
    assert_eq!(talk.get(&show, "description"), "work");
    talk.say(&format!("{update} SecurityGroupRuleDescription.1.SecurityGroupRuleId={rule} SecurityGroupRuleDescription.1.Description=both"))
        .unwrap();
    assert_eq!(talk.get(&show, "description"), "both");
    let other = format!(
        "UpdateSecurityGroupRuleDescriptionsEgress GroupId={id} SecurityGroupRuleDescription.1.SecurityGroupRuleId={rule}"
    );
    assert_eq!(talk.no(&other), "InvalidSecurityGroupRuleId.NotFound");
}

#[test]
fn a_modified_rule_keeps_its_id() {
    let talk = Talk::new();
    let id = group(&talk, "web");
    let allow = format!("AuthorizeSecurityGroupIngress GroupId={id}");
    let rule = talk.get(&format!("{allow} {SSH}"), "securityGroupRuleId");
    let modify = |port: u16| {
        let at = "SecurityGroupRule.1.SecurityGroupRule";
        format!(
            "ModifySecurityGroupRules GroupId={id} SecurityGroupRule.1.SecurityGroupRuleId={rule} {at}.IpProtocol=tcp {at}.FromPort={port} {at}.ToPort={port} {at}.CidrIpv4=0.0.0.0/0"
        )
    };
    talk.say(&modify(2222)).unwrap();
    let show = format!("DescribeSecurityGroupRules SecurityGroupRuleId.1={rule}");
    assert_eq!(talk.get(&show, "fromPort"), "2222");
    talk.say(&format!("{allow} {SSH}")).unwrap();
    assert_eq!(talk.no(&modify(22)), "InvalidPermission.Duplicate");
    let two = format!(
        "{} SecurityGroupRule.1.SecurityGroupRule.CidrIpv6=::/0",
        modify(80)
    );
    assert_eq!(talk.no(&two), "InvalidParameterCombination");
}
