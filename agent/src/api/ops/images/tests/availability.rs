//! Deprecated and disabled images.

use time::Duration;

use super::*;

fn ahead(duration: Duration) -> String {
    Timestamp(Timestamp::now().0 + duration).text()
}

#[test]
fn a_deprecated_image_is_hidden_from_others_unless_they_ask() {
    let (bench, id) = bench();
    let share = [
        ("ImageId", id.as_str()),
        ("LaunchPermission.Add.1.Group", "all"),
    ];
    bench.ok("ModifyImageAttribute", &share);
    let deprecate = |at: &str| [("ImageId", id.clone()), ("DeprecateAt", at.to_owned())];
    let send = |parameters: [(&'static str, String); 2]| {
        let parameters = parameters
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        bench.send(&bench.call, "EnableImageDeprecation", &parameters)
    };
    for wrong in ["soon", "2020-01-01T00:00:00Z", &ahead(Duration::days(4000))] {
        let error = send(deprecate(wrong)).unwrap_err();
        assert_eq!(error.code, "InvalidParameterValue", "{wrong}");
    }
    send(deprecate("2030-05-06T07:08:40Z")).unwrap();
    let answer = bench.ok("DescribeImages", &[]);
    assert!(answer.contains("<deprecationTime>2030-05-06T07:09:00.000Z</deprecationTime>"));
    let friend = as_account(&bench, FRIEND);
    assert_eq!(ids_of(&bench, &friend, &[]).len(), 1);
    // The time comes.
    let past = Timestamp(Timestamp::now().0 - Duration::minutes(5));
    let age = |region: &mut Region| {
        edit(region, &id)?.deprecated_at = Some(past);
        Ok(())
    };
    bench.cloud.change("us-east-1", age).unwrap();
    assert!(ids_of(&bench, &friend, &[]).is_empty());
    assert_eq!(
        ids_of(&bench, &friend, &[("IncludeDeprecated", "true")]).len(),
        1
    );
    assert_eq!(ids_of(&bench, &friend, &[("ImageId.1", &id)]).len(), 1);
    assert_eq!(ids_of(&bench, &bench.call, &[]).len(), 1);
    assert!(usable(&bench.cloud, &friend, &id).is_ok());
    bench.ok("DisableImageDeprecation", &[("ImageId", &id)]);
    assert!(!bench.ok("DescribeImages", &[]).contains("deprecationTime"));
    assert_eq!(ids_of(&bench, &friend, &[]).len(), 1);
}

#[test]
fn a_disabled_image_is_not_launched_and_shared_with_nobody() {
    let (bench, id) = bench();
    let share = [
        ("ImageId", id.as_str()),
        ("LaunchPermission.Add.1.UserId", FRIEND),
    ];
    bench.ok("ModifyImageAttribute", &share);
    let one = [("ImageId", id.as_str())];
    bench.ok("DisableImage", &one);
    assert!(ids_of(&bench, &bench.call, &[]).is_empty());
    let all = bench.ok("DescribeImages", &[("IncludeDisabled", "true")]);
    assert!(all.contains("<imageState>disabled</imageState>"));
    assert_eq!(ids_of(&bench, &bench.call, &[("ImageId.1", &id)]).len(), 1);
    let error = usable(&bench.cloud, &bench.call, &id).unwrap_err();
    assert_eq!(error.code, "InvalidAMIID.Unavailable");
    let error = bench.error("ModifyImageAttribute", &share);
    assert_eq!(error.code, "InvalidAMIID.Unavailable");
    bench.ok("EnableImage", &one);
    assert!(usable(&bench.cloud, &bench.call, &id).is_ok());
    assert!(permissions(&bench, &id).is_empty());
    for action in [
        "DisableImage",
        "EnableImage",
        "DisableImageDeprecation",
        "EnableImageDeprecation",
    ] {
        assert_eq!(
            bench.error(action, &[]).code,
            "MissingParameter",
            "{action}"
        );
        let stranger = as_account(&bench, STRANGER);
        let time = ahead(Duration::days(1));
        let mut parameters = one.to_vec();
        if action == "EnableImageDeprecation" {
            parameters.push(("DeprecateAt", &time));
        }
        let error = bench.send(&stranger, action, &parameters).unwrap_err();
        assert_eq!(error.code, "InvalidAMIID.NotFound", "{action}");
        let dry = Call {
            dry_run: true,
            ..bench.call.clone()
        };
        let error = bench.send(&dry, action, &parameters).unwrap_err();
        assert_eq!(error.code, "DryRunOperation", "{action}");
    }
    assert!(usable(&bench.cloud, &bench.call, &id).is_ok());
}
