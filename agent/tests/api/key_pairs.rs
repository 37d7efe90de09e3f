//! A key pair's life over the wire.

use crate::client::Server;

const IMPORT: &str = "Action=ImportKeyPair&Version=2016-11-15&KeyName=mine&PublicKeyMaterial=c3NoLWVkMjU1MTkgQUFBQUMzTnphQzFsWkRJMU5URTVBQUFBSUErcTBxK2NDRTNZVnhYR3d3ZXR5a09MdTllaGpMaXV0RWdBc3M1M1kxVnQgeA%3D%3D";

#[test]
fn round_trip() {
    let server = Server::start();
    let dry = server.post("Action=CreateKeyPair&Version=2016-11-15&KeyName=web&DryRun=true");
    assert_eq!(dry.error(), (412, "DryRunOperation"));
    let made = server.post(
        "Action=CreateKeyPair&Version=2016-11-15&KeyName=web&TagSpecification.1.ResourceType=key-pair\
         &TagSpecification.1.Tag.1.Key=Name&TagSpecification.1.Tag.1.Value=x",
    );
    assert!(made.text("keyMaterial").contains("BEGIN RSA PRIVATE KEY"));
    assert_eq!(
        server.post(IMPORT).text("keyFingerprint"),
        "6DMGhDakXf7jSmbNTg4RXJsVO3cBMLufvdUMLJkffTo="
    );
    assert_eq!(
        server.post(IMPORT).error(),
        (400, "InvalidKeyPair.Duplicate")
    );

    let one = server.get(
        "Action=DescribeKeyPairs&Filter.1.Name=tag%3AName&Filter.1.Value.1=x&Version=2016-11-15",
    );
    assert_eq!(one.text("keyFingerprint"), made.text("keyFingerprint"));
    assert!(!one.body.contains("mine") && !one.body.contains("PRIVATE"));

    let id = made.text("keyPairId");
    let gone = server.post(&format!(
        "Action=DeleteKeyPair&Version=2016-11-15&KeyPairId={id}"
    ));
    assert_eq!(gone.text("return"), "true");
    let none = server.post("Action=DescribeKeyPairs&Version=2016-11-15&KeyName.1=web");
    assert_eq!(none.error(), (400, "InvalidKeyPair.NotFound"));
    let mut elsewhere = Server::signer();
    elsewhere.region = "us-west-2".into();
    let reply = server.post_as(&elsewhere, "Action=DescribeKeyPairs&Version=2016-11-15");
    assert!(reply.body.contains("<keySet/>"), "regions are apart");
}
