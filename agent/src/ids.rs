//! EC2's identifiers: a prefix, a dash and 17 hexadecimal digits.

use rand::Rng;

/// Makes a new identifier: `new("i")` gives `i-0123456789abcdef0`.
///
/// 64 random bits and a leading zero digit, as EC2's long identifiers begin with 0.
#[must_use]
pub fn new(prefix: &str) -> String {
    let value: u64 = rand::rng().random();
    format!("{prefix}-0{value:016x}")
}

/// Whether `text` is an identifier with this prefix, in EC2's long or short (8 digits) form.
#[must_use]
pub fn is(prefix: &str, text: &str) -> bool {
    let Some(digits) = text
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
    else {
        return false;
    };
    matches!(digits.len(), 8 | 17)
        && digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A MAC address as EC2 gives them: locally administered, `02:…`.
#[must_use]
pub fn mac() -> String {
    let [a, b, c, d, e]: [u8; 5] = rand::rng().random();
    format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}

/// A system UUID as EC2's hypervisor gives them: it begins with `ec2`, which is how cloud-init
/// and others know EC2.
#[must_use]
pub fn system_uuid() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[0] = 0xec;
    bytes[1] = 0x20 | (bytes[1] & 0x0f);
    bytes[6] = 0x40 | (bytes[6] & 0x0f);
    bytes[8] = 0x80 | (bytes[8] & 0x3f);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_identifiers_are_recognised() {
        let id = new("i");
        assert_eq!(id.len(), 19);
        assert!(is("i", &id));
        assert!(!is("vol", &id));
        assert!(is("ami", "ami-12345678"));
        assert!(!is("i", "i-12345678X"));
        assert!(!is("i", "i-../../etc/passwd"));
    }

    #[test]
    fn a_volume_serial_fits_virtio() {
        // virtio 1.2 §5.2.6: GET_ID answers 20 bytes.
        assert_eq!(new("vol").replace('-', "").len(), 20);
    }

    #[test]
    fn macs_are_local_and_uuids_say_ec2() {
        assert!(mac().starts_with("02:"));
        let uuid = system_uuid();
        assert!(uuid.starts_with("ec2"), "{uuid}");
        assert_eq!(uuid.len(), 36);
    }
}
