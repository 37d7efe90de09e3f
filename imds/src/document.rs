//! The instance identity document (EC2 user guide, "Instance identity documents").

use crate::json::{self, Object};
use crate::view::InstanceView;

/// The document's text. Its bytes are what the signatures sign: equal views give equal bytes.
pub(crate) fn document(view: &InstanceView) -> String {
    let private_ip = view
        .interfaces
        .first()
        .and_then(|primary| primary.private_ipv4s.first());
    let mut object = Object::default();
    object
        .text("accountId", &view.account_id)
        .text("architecture", &view.architecture)
        .text("availabilityZone", &view.availability_zone)
        .text_or_null("billingProducts", None)
        .text_or_null("devpayProductCodes", None)
        .list_or_null("marketplaceProductCodes", &view.extras.product_codes)
        .text("imageId", &view.image_id)
        .text("instanceId", &view.instance_id)
        .text("instanceType", &view.instance_type)
        .text_or_null("kernelId", view.extras.kernel_id.as_deref())
        .text("pendingTime", &json::iso(view.pending_time))
        .text_or_null("privateIp", private_ip.map(ToString::to_string).as_deref())
        .text_or_null("ramdiskId", view.extras.ramdisk_id.as_deref())
        .text("region", &view.region)
        .text("version", "2017-09-30");
    object.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_ec2_writes_it() {
        let expected = r#"{
  "accountId" : "123456789012",
  "architecture" : "x86_64",
  "availabilityZone" : "us-east-1a",
  "billingProducts" : null,
  "devpayProductCodes" : null,
  "marketplaceProductCodes" : null,
  "imageId" : "ami-0123456789abcdef0",
  "instanceId" : "i-0123456789abcdef0",
  "instanceType" : "t3.micro",
  "kernelId" : null,
  "pendingTime" : "2026-01-01T00:00:00Z",
  "privateIp" : "172.31.16.10",
  "ramdiskId" : null,
  "region" : "us-east-1",
  "version" : "2017-09-30"
}"#;
        assert_eq!(document(&InstanceView::example()), expected);
    }
}
