//! An instance's life by EC2's SDK for Rust: one case a step. Where the server is, and the keys, the SDK finds in the environment.

use std::error::Error;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_sdk_ec2::Client;
use aws_sdk_ec2::client::Waiters as _;
use aws_sdk_ec2::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use aws_sdk_ec2::types::{
    Filter, InstanceStateName, InstanceType, IpPermission, IpRange, ResourceType, Tag,
    TagSpecification,
};

type Case<T> = Result<T, Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(120);

fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// The steps, each told when it is done; an error ends them.
async fn life(ec2: &Client) -> Case<()> {
    let zones = ec2.describe_availability_zones().send().await?;
    assert!(!zones.availability_zones().is_empty());
    println!("ok   rust.describe_availability_zones");

    let images = ec2
        .describe_images()
        .owners("amazon")
        .filters(filter("architecture", "x86_64"))
        .send()
        .await?;
    let image = images.images().first().ok_or("no image")?;
    println!("ok   rust.describe_images");

    let key = ec2.create_key_pair().key_name("rust").send().await?;
    assert!(
        key.key_material()
            .is_some_and(|key| key.contains("PRIVATE KEY"))
    );
    println!("ok   rust.create_key_pair");

    let group = ec2
        .create_security_group()
        .group_name("rust")
        .description("rust")
        .send()
        .await?;
    let group = group.group_id().ok_or("no group")?;
    let permission = IpPermission::builder()
        .ip_protocol("tcp")
        .from_port(22)
        .to_port(22)
        .ip_ranges(
            IpRange::builder()
                .cidr_ip("0.0.0.0/0")
                .description("ssh")
                .build(),
        );
    let added = ec2
        .authorize_security_group_ingress()
        .group_id(group)
        .ip_permissions(permission.build())
        .send()
        .await?;
    assert_eq!(added.security_group_rules().len(), 1);
    println!("ok   rust.authorize_security_group_ingress");

    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(Tag::builder().key("Name").value("rust").build());
    // A client token is made by the SDK itself.
    let run = ec2
        .run_instances()
        .image_id(image.image_id().ok_or("an image without id")?)
        .instance_type(InstanceType::T3Micro)
        .min_count(2)
        .max_count(2)
        .key_name("rust")
        .security_group_ids(group)
        .tag_specifications(tags.build())
        .send()
        .await?;
    let ids: Vec<String> = run
        .instances()
        .iter()
        .filter_map(|i| i.instance_id().map(Into::into))
        .collect();
    assert_eq!(ids.len(), 2);
    println!("ok   rust.run_instances");

    ec2.wait_until_instance_running()
        .set_instance_ids(Some(ids.clone()))
        .wait(PATIENCE)
        .await?;
    println!("ok   rust.wait_until_instance_running");

    let mut pages = ec2
        .describe_instances()
        .filters(filter("tag:Name", "rust"))
        .max_results(5)
        .into_paginator()
        .items()
        .send();
    let mut found = Vec::new();
    while let Some(reservation) = pages.next().await {
        found.extend(reservation?.instances().to_vec());
    }
    assert_eq!(found.len(), 2);
    for one in &found {
        let state = one.state().and_then(|state| state.name());
        assert_eq!(state, Some(&InstanceStateName::Running));
        assert!(one.launch_time().is_some() && one.private_ip_address().is_some());
    }
    println!("ok   rust.describe_instances in pages");

    let dry = ec2
        .stop_instances()
        .instance_ids(&ids[0])
        .dry_run(true)
        .send()
        .await;
    let dry = dry.err().ok_or("it was no dry run")?.into_service_error();
    assert_eq!(dry.code(), Some("DryRunOperation"));
    let none = ec2
        .describe_instances()
        .instance_ids("i-0123456789abcdef0")
        .send()
        .await;
    let none = none
        .err()
        .ok_or("there is such an instance")?
        .into_service_error();
    assert_eq!(none.code(), Some("InvalidInstanceID.NotFound"));
    println!("ok   rust.errors have their codes");

    ec2.stop_instances().instance_ids(&ids[0]).send().await?;
    ec2.wait_until_instance_stopped()
        .instance_ids(&ids[0])
        .wait(PATIENCE)
        .await?;
    ec2.start_instances().instance_ids(&ids[0]).send().await?;
    ec2.wait_until_instance_running()
        .instance_ids(&ids[0])
        .wait(PATIENCE)
        .await?;
    println!("ok   rust.stop_instances and start_instances");

    ec2.terminate_instances()
        .set_instance_ids(Some(ids.clone()))
        .send()
        .await?;
    ec2.wait_until_instance_terminated()
        .set_instance_ids(Some(ids))
        .wait(PATIENCE)
        .await?;
    ec2.delete_security_group().group_id(group).send().await?;
    ec2.delete_key_pair().key_name("rust").send().await?;
    println!("ok   rust.terminate_instances");
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    if let Err(error) = life(&Client::new(&config)).await {
        println!("FAIL rust: {}", DisplayErrorContext(error.as_ref()));
        std::process::exit(1);
    }
}
