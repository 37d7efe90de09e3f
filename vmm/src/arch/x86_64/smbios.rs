//! SMBIOS 3.0 tables (DMTF DSP0134) with a 2.8 entry point for kernels that know no other: how a
//! guest learns that it runs "on EC2", and by which OEM string it learns that it does not.

use super::layout::{GIB, LOW_RAM_MAX, MIB, SMBIOS, SMBIOS_SIZE};
use crate::config::SmbiosConfig;

const ENTRY_2: usize = 0;
const ENTRY_3: usize = 0x20;
const STRUCTURES: usize = 0x40;
const HANDLE_CHASSIS: u16 = 0x300;
const HANDLE_MEMORY: u16 = 0x1000;

/// Why the tables cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum SmbiosError {
    /// Strings too long.
    #[error("smbios: the strings need {0} bytes, there is room for {SMBIOS_SIZE}")]
    TooLarge(usize),
    /// Not a UUID.
    #[error("smbios.uuid: {0:?} is not a UUID like ec2e1916-9099-7caf-fd21-012345abcdef")]
    Uuid(String),
}

/// What the tables say about the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// Guest RAM, bytes.
    pub ram: u64,
    /// Processors.
    pub vcpus: u8,
}

/// Builds both entry points and the structures, to be placed at [`SMBIOS`].
///
/// # Errors
/// When a string is wrong or too long.
pub fn tables(config: &SmbiosConfig, hardware: Hardware) -> Result<Vec<u8>, SmbiosError> {
    let table = structures(config, hardware)?;
    let size = STRUCTURES + table.data.len();
    if u64::try_from(size).map_or(true, |size| size > SMBIOS_SIZE) {
        return Err(SmbiosError::TooLarge(size));
    }
    let mut blob = vec![0; STRUCTURES];
    blob[ENTRY_2..ENTRY_2 + 31].copy_from_slice(&entry_2(&table));
    blob[ENTRY_3..ENTRY_3 + 24].copy_from_slice(&entry_3(&table));
    blob.extend_from_slice(&table.data);
    Ok(blob)
}

/// Parses a UUID to its bytes in textual order.
///
/// # Errors
/// [`SmbiosError::Uuid`].
pub fn parse_uuid(text: &str) -> Result<[u8; 16], SmbiosError> {
    let error = || SmbiosError::Uuid(text.to_owned());
    let groups = [8, 4, 4, 4, 12];
    let mut parts = text.split('-');
    let mut uuid = [0; 16];
    let mut at = 0;
    for digits in groups {
        let part = parts.next().ok_or_else(error)?;
        if part.len() != digits || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        for pair in 0..digits / 2 {
            uuid[at] =
                u8::from_str_radix(&part[pair * 2..pair * 2 + 2], 16).map_err(|_| error())?;
            at += 1;
        }
    }
    if parts.next().is_some() {
        Err(error())
    } else {
        Ok(uuid)
    }
}

#[derive(Default)]
struct Table {
    data: Vec<u8>,
    count: u16,
    longest: usize,
}

/// The strings of one structure, numbered from 1; 0 means "none".
#[derive(Default)]
struct Strings(Vec<String>);

impl Strings {
    fn add(&mut self, text: Option<&str>) -> u8 {
        match text {
            Some(text) if !text.is_empty() => {
                // A NUL would end the string early and shift all others.
                self.0.push(text.replace('\0', ""));
                u8::try_from(self.0.len()).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

impl Table {
    /// Appends a structure: header, `body`, strings, double NUL.
    fn push(&mut self, kind: u8, handle: u16, body: &[u8], strings: &Strings) {
        let start = self.data.len();
        self.data.push(kind);
        self.data
            .push(u8::try_from(body.len() + 4).unwrap_or(u8::MAX));
        self.data.extend(handle.to_le_bytes());
        self.data.extend_from_slice(body);
        for text in &strings.0 {
            self.data.extend_from_slice(text.as_bytes());
            self.data.push(0);
        }
        if strings.0.is_empty() {
            self.data.push(0);
        }
        self.data.push(0);
        self.count += 1;
        self.longest = self.longest.max(self.data.len() - start);
    }
}

fn structures(config: &SmbiosConfig, hardware: Hardware) -> Result<Table, SmbiosError> {
    let mut table = Table::default();
    let vendor = config.vendor.as_deref();
    bios(&mut table, config);
    system(&mut table, config)?;
    let mut strings = Strings::default();
    let maker = strings.add(vendor);
    let asset = strings.add(config.board_asset_tag.as_deref());
    let [chassis_low, chassis_high] = HANDLE_CHASSIS.to_le_bytes();
    // Hosting board, motherboard.
    let board = [
        maker,
        0,
        0,
        0,
        asset,
        1,
        0,
        chassis_low,
        chassis_high,
        0x0a,
        0,
    ];
    table.push(2, 0x200, &board, &strings);
    let mut strings = Strings::default();
    let maker = strings.add(vendor);
    let asset = strings.add(config.chassis_asset_tag.as_deref());
    // Type "other", states "safe".
    let chassis = [maker, 1, 0, 0, asset, 3, 3, 3, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    table.push(3, HANDLE_CHASSIS, &chassis, &strings);
    processor(&mut table, vendor, hardware.vcpus);
    if !config.oem_strings.is_empty() {
        let mut strings = Strings::default();
        for text in &config.oem_strings {
            strings.add(Some(text));
        }
        let count = u8::try_from(strings.0.len()).unwrap_or(u8::MAX);
        table.push(11, 0xb00, &[count], &strings);
    }
    memory(&mut table, hardware.ram);
    table.push(32, 0x2000, &[0; 7], &Strings::default());
    table.push(127, 0x7f00, &[], &Strings::default());
    Ok(table)
}

/// Type 0.
fn bios(table: &mut Table, config: &SmbiosConfig) {
    let mut strings = Strings::default();
    let vendor = strings.add(config.vendor.as_deref());
    let version = strings.add(config.bios_version.as_deref());
    let date = strings.add(Some("10/16/2017"));
    let mut body = vec![vendor, version, 0, 0xe8, date, 0];
    // Characteristics: not supported; extension byte 2: virtual machine, targeted content.
    body.extend((1_u64 << 3).to_le_bytes());
    body.extend([0x01, 0x1c, 0, 0, 0xff, 0xff]);
    table.push(0, 0, &body, &strings);
}

/// Type 1. The first three fields of the UUID are little-endian since SMBIOS 2.6.
fn system(table: &mut Table, config: &SmbiosConfig) -> Result<(), SmbiosError> {
    let mut strings = Strings::default();
    let vendor = strings.add(config.vendor.as_deref());
    let product = strings.add(config.product.as_deref());
    let serial = strings.add(config.serial.as_deref().or(config.uuid.as_deref()));
    let mut uuid = match &config.uuid {
        Some(text) => parse_uuid(text)?,
        None => [0; 16],
    };
    uuid[0..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    let mut body = vec![vendor, product, 0, serial];
    body.extend(uuid);
    // Wake-up by the power switch; no SKU, no family.
    body.extend([6, 0, 0]);
    table.push(1, 0x100, &body, &strings);
    Ok(())
}

/// Type 4: one package with all cores.
fn processor(table: &mut Table, vendor: Option<&str>, vcpus: u8) {
    let mut strings = Strings::default();
    let socket = strings.add(Some("CPU 0"));
    let maker = strings.add(vendor);
    // Central processor, family "other".
    let mut body = vec![socket, 3, 1, maker];
    body.extend([0; 8]);
    // Version, voltage; clocks unknown; populated and enabled; upgrade "other".
    body.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x41, 1]);
    // No cache handles, serial, asset tag or part number.
    body.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0]);
    // Cores, enabled cores, threads; 64-bit capable.
    body.extend([vcpus, vcpus, vcpus, 0x04, 0]);
    body.extend([1, 0]);
    for _ in 0..3 {
        body.extend(u16::from(vcpus).to_le_bytes());
    }
    table.push(4, 0x400, &body, &strings);
}

/// Types 16, 17 and 19.
fn memory(table: &mut Table, ram: u64) {
    let word = |value: u64| u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes();
    // System board, system memory, no error correction known.
    let mut array = vec![1, 3, 2];
    array.extend(0x8000_0000_u32.to_le_bytes());
    array.extend([0xfe, 0xff, 1, 0]);
    array.extend(ram.to_le_bytes());
    table.push(16, HANDLE_MEMORY, &array, &Strings::default());

    let mut strings = Strings::default();
    let locator = strings.add(Some("DIMM 0"));
    let [array_low, array_high] = HANDLE_MEMORY.to_le_bytes();
    let mut device = vec![array_low, array_high, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];
    // 0x7fff: see the extended size, in MiB.
    device.extend([0xff, 0x7f, 9, 0, locator, 0, 7, 2, 0, 0, 0]);
    device.extend([0, 0, 0, 0, 0]);
    device.extend(word(ram / MIB));
    device.extend([0; 8]);
    table.push(17, 0x1100, &device, &strings);

    let mut range = |handle: u16, start: u64, end: u64| {
        // 0xffffffff: see the extended addresses, in bytes.
        let mut body = vec![0xff; 8];
        body.extend(HANDLE_MEMORY.to_le_bytes());
        body.push(1);
        body.extend(start.to_le_bytes());
        body.extend((end - 1).to_le_bytes());
        table.push(19, handle, &body, &Strings::default());
    };
    range(0x1300, 0, ram.min(LOW_RAM_MAX));
    if ram > LOW_RAM_MAX {
        range(0x1301, 4 * GIB, 4 * GIB + ram - LOW_RAM_MAX);
    }
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes
        .iter()
        .fold(0_u8, |sum, byte| sum.wrapping_add(*byte))
        .wrapping_neg()
}

fn entry_2(table: &Table) -> [u8; 31] {
    let mut entry = [0; 31];
    entry[..4].copy_from_slice(b"_SM_");
    entry[5..8].copy_from_slice(&[31, 2, 8]);
    let longest = u16::try_from(table.longest).unwrap_or(u16::MAX);
    entry[8..10].copy_from_slice(&longest.to_le_bytes());
    entry[16..21].copy_from_slice(b"_DMI_");
    let length = u16::try_from(table.data.len()).unwrap_or(u16::MAX);
    entry[22..24].copy_from_slice(&length.to_le_bytes());
    let address = u32::try_from(table_address()).unwrap_or(0);
    entry[24..28].copy_from_slice(&address.to_le_bytes());
    entry[28..30].copy_from_slice(&table.count.to_le_bytes());
    entry[30] = 0x28;
    entry[21] = checksum(&entry[16..]);
    entry[4] = checksum(&entry);
    entry
}

fn entry_3(table: &Table) -> [u8; 24] {
    let mut entry = [0; 24];
    entry[..5].copy_from_slice(b"_SM3_");
    entry[6..11].copy_from_slice(&[24, 3, 0, 0, 1]);
    let length = u32::try_from(table.data.len()).unwrap_or(u32::MAX);
    entry[12..16].copy_from_slice(&length.to_le_bytes());
    entry[16..].copy_from_slice(&table_address().to_le_bytes());
    entry[5] = checksum(&entry);
    entry
}

fn table_address() -> u64 {
    SMBIOS + u64::try_from(STRUCTURES).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UUID: &str = "ec2e1916-9099-7caf-fd21-012345abcdef";

    fn config() -> SmbiosConfig {
        SmbiosConfig {
            uuid: Some(UUID.to_owned()),
            vendor: Some("Amazon EC2".to_owned()),
            product: Some("t3.micro".to_owned()),
            board_asset_tag: Some("i-0123456789abcdef0".to_owned()),
            oem_strings: vec!["cumulet".to_owned()],
            ..Default::default()
        }
    }

    /// `(type, formatted area, strings)` of every structure, as a guest walks them.
    fn walk(mut data: &[u8]) -> Vec<(u8, Vec<u8>, Vec<String>)> {
        let mut found = Vec::new();
        loop {
            let (kind, length) = (data[0], usize::from(data[1]));
            let body = data[..length].to_vec();
            let end = data[length..]
                .windows(2)
                .position(|pair| pair == [0, 0])
                .unwrap()
                + length;
            let strings = data[length..end]
                .split(|byte| *byte == 0)
                .filter(|text| !text.is_empty())
                .map(|text| String::from_utf8(text.to_vec()).unwrap())
                .collect();
            found.push((kind, body, strings));
            data = &data[end + 2..];
            if kind == 127 {
                assert!(data.is_empty());
                return found;
            }
        }
    }

    #[test]
    fn a_guest_reads_what_ec2_would_say() {
        let hardware = Hardware {
            ram: 5 * GIB,
            vcpus: 2,
        };
        let blob = tables(&config(), hardware).unwrap();
        assert_eq!(checksum(&blob[..31]), 0);
        assert_eq!(checksum(&blob[16..31]), 0);
        assert_eq!(checksum(&blob[ENTRY_3..ENTRY_3 + 24]), 0);
        let found = walk(&blob[STRUCTURES..]);
        let kinds: Vec<_> = found.iter().map(|(kind, ..)| *kind).collect();
        assert_eq!(kinds, [0, 1, 2, 3, 4, 11, 16, 17, 19, 19, 32, 127]);
        let (_, system, strings) = &found[1];
        assert_eq!(system.len(), 27);
        assert_eq!(strings, &["Amazon EC2", "t3.micro", UUID]);
        assert_eq!(system[8..12], [0x16, 0x19, 0x2e, 0xec]);
        assert_eq!(system[12..16], [0x99, 0x90, 0xaf, 0x7c]);
        assert_eq!(found[5].2, ["cumulet"]);
        let lengths: Vec<_> = found.iter().map(|(_, body, _)| body.len()).collect();
        assert_eq!(lengths[..5], [24, 27, 15, 22, 48]);
        assert_eq!(lengths[6..9], [23, 40, 31]);
    }

    #[test]
    fn no_strings_is_fine_and_bad_uuids_are_named() {
        let hardware = Hardware {
            ram: 64 * MIB,
            vcpus: 1,
        };
        walk(&tables(&SmbiosConfig::default(), hardware).unwrap()[STRUCTURES..]);
        for text in [
            "",
            "ec2",
            "ec2e1916-9099-7caf-fd21-01234",
            "éc2e1916-9099-7caf-fd21-012345abcdef",
        ] {
            assert!(parse_uuid(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_string_makes_walkable_tables(text in "\\PC{0,80}") {
            let config = SmbiosConfig { vendor: Some(text.clone()), oem_strings: vec![text], ..config() };
            walk(&tables(&config, Hardware { ram: 64 * MIB, vcpus: 1 }).unwrap()[STRUCTURES..]);
        }
    }
}
