//! Credentials: the role's (`iam/`) and the instance's own (`identity-credentials/`).

use super::{Directory, is_name};
use crate::json::{self, Object};
use crate::view::{Credentials, InstanceView};

pub(super) fn fill(dir: &mut Directory, view: &InstanceView) {
    if let Some(profile) = view
        .extras
        .instance_profile
        .as_ref()
        .filter(|p| is_name(&p.role_name))
    {
        let iam = dir.directory("iam");
        let updated = json::iso(profile.credentials.last_updated);
        let mut info = Object::default();
        info.text("Code", "Success").text("LastUpdated", &updated);
        info.text("InstanceProfileArn", &profile.arn)
            .text("InstanceProfileId", &profile.id);
        iam.text("info", info.finish());
        let credentials = iam.directory("security-credentials");
        credentials.text(&profile.role_name, document(&profile.credentials));
    }
    if let Some(credentials) = &view.extras.identity_credentials {
        let ec2 = dir.directory("identity-credentials").directory("ec2");
        let mut info = Object::default();
        info.text("Code", "Success")
            .text("LastUpdated", &json::iso(credentials.last_updated));
        info.text("AccountId", &view.account_id);
        ec2.text("info", info.finish());
        ec2.directory("security-credentials")
            .text("ec2-instance", document(credentials));
    }
}

fn document(credentials: &Credentials) -> String {
    let mut object = Object::default();
    object.text("Code", "Success");
    object.text("LastUpdated", &json::iso(credentials.last_updated));
    object.text("Type", "AWS-HMAC");
    object.text("AccessKeyId", &credentials.access_key_id);
    object.text("SecretAccessKey", &credentials.secret_access_key);
    object.text("Token", &credentials.token);
    object.text("Expiration", &json::iso(credentials.expiration));
    object.finish()
}
