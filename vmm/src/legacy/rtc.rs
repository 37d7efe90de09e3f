//! CMOS memory and clock (MC146818) at ports 0x70 and 0x71: time of day from the host, in UTC.
//!
//! Alarm and periodic interrupts are not raised; the registers keep what is written, so that a
//! driver that programs them finds its values again.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::device::BusDevice;

const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const WEEKDAY: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;
/// The FADT names this index too.
pub const CENTURY_INDEX: u8 = CENTURY;

/// Divider on, 1024 Hz rate; the update-in-progress bit is never set, since reads are of one
/// moment.
const A_DEFAULT: u8 = 0x26;
/// Register B: values are binary, not BCD.
const B_BINARY: u8 = 1 << 2;
/// Register B: hours count to 24.
const B_24_HOURS: u8 = 1 << 1;
/// Register B: the clock does not run, so that it can be set.
const B_SET: u8 = 1 << 7;
/// Register D: memory and time are valid.
const D_VALID: u8 = 1 << 7;

/// Memory bytes, plain so that a snapshot can keep them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rtc {
    index: u8,
    memory: [u8; 128],
    /// What the guest added to the host's clock by setting it, in seconds.
    offset: i64,
}

impl Rtc {
    /// A clock for a machine with this memory below and above 4 GiB (firmware reads the sizes
    /// where PCs keep them) and `vcpus` processors.
    #[must_use]
    pub fn new(low: u64, high: u64, vcpus: u8) -> Self {
        let mut memory = [0; 128];
        memory[usize::from(REGISTER_A)] = A_DEFAULT;
        memory[usize::from(REGISTER_B)] = B_24_HOURS;
        let mut word = |index: usize, value: u64| {
            let value = u16::try_from(value).unwrap_or(u16::MAX);
            memory[index..index + 2].copy_from_slice(&value.to_le_bytes());
        };
        word(0x15, 640);
        word(0x17, (low >> 10).saturating_sub(1024));
        word(0x30, (low >> 10).saturating_sub(1024));
        word(0x34, low.saturating_sub(16 << 20) >> 16);
        word(0x5b, high >> 16);
        memory[0x5d] = (high >> 32).to_le_bytes()[0];
        memory[0x5f] = vcpus - 1;
        Self {
            index: 0,
            memory,
            offset: 0,
        }
    }

    fn now(&self) -> Civil {
        let host = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        Civil::from_unix(host.saturating_add(self.offset).max(0))
    }

    fn read_index(&self, index: u8) -> u8 {
        let stopped = self.memory[usize::from(REGISTER_B)] & B_SET != 0;
        let value = match index {
            REGISTER_D => return D_VALID,
            REGISTER_C => return 0,
            SECONDS | MINUTES | HOURS | WEEKDAY | DAY | MONTH | YEAR | CENTURY if !stopped => {
                let now = self.now();
                match index {
                    SECONDS => now.second,
                    MINUTES => now.minute,
                    HOURS => now.hour,
                    WEEKDAY => now.weekday,
                    DAY => now.day,
                    MONTH => now.month,
                    YEAR => now.year_of_century,
                    _ => now.century,
                }
            }
            _ => return self.memory[usize::from(index)],
        };
        self.encode(value)
    }

    fn encode(&self, value: u8) -> u8 {
        if self.memory[usize::from(REGISTER_B)] & B_BINARY != 0 {
            value
        } else {
            ((value / 10) << 4) | (value % 10)
        }
    }

    fn decode(&self, value: u8) -> u8 {
        if self.memory[usize::from(REGISTER_B)] & B_BINARY != 0 {
            value
        } else {
            (value >> 4).saturating_mul(10).saturating_add(value & 0xf)
        }
    }

    fn write_index(&mut self, index: u8, value: u8) {
        if index == REGISTER_B {
            let was_set = self.memory[usize::from(REGISTER_B)] & B_SET != 0;
            let is_set = value & B_SET != 0;
            if is_set && !was_set {
                // In the format that the guest chooses with the same write.
                self.memory[usize::from(REGISTER_B)] = value & !B_SET;
                self.freeze();
            }
            self.memory[usize::from(REGISTER_B)] = value;
            if was_set && !is_set {
                self.thaw();
            }
        } else if !matches!(index, REGISTER_C | REGISTER_D) {
            self.memory[usize::from(index)] = value;
        }
    }

    /// Copies the running time into the registers when the guest begins to set it.
    fn freeze(&mut self) {
        for index in [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY] {
            self.memory[usize::from(index)] = self.read_index(index);
        }
    }

    /// Takes over the time that the guest has set.
    fn thaw(&mut self) {
        let field = |index: u8| i64::from(self.decode(self.memory[usize::from(index)]));
        let year = field(CENTURY) * 100 + field(YEAR);
        let days = days_from_civil(year, field(MONTH).clamp(1, 12), field(DAY).clamp(1, 31));
        let set = days * 86_400 + field(HOURS) * 3600 + field(MINUTES) * 60 + field(SECONDS);
        let host = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
        self.offset = set - host;
    }
}

impl BusDevice for Rtc {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if offset == 1 {
            data[0] = self.read_index(self.index);
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if offset == 0 {
            // Bit 7 masks NMIs on a PC.
            self.index = data[0] & 0x7f;
            if let Some(&value) = data.get(1) {
                self.write_index(self.index, value);
            }
        } else {
            self.write_index(self.index, data[0]);
        }
    }
}

/// A moment as the clock's registers show it.
#[derive(Debug, PartialEq, Eq)]
struct Civil {
    century: u8,
    year_of_century: u8,
    month: u8,
    day: u8,
    /// 1 is Sunday.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Civil {
    /// Gregorian date of a Unix time, from the count of days since 0000-03-01.
    fn from_unix(seconds: i64) -> Self {
        let small = |value: i64| u8::try_from(value).unwrap_or(0);
        let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
            century: small(year / 100),
            year_of_century: small(year % 100),
            month: small(month),
            day: small(day),
            weekday: small((days + 4).rem_euclid(7) + 1),
            hour: small(of_day / 3600),
            minute: small(of_day / 60 % 60),
            second: small(of_day % 60),
        }
    }
}

/// Days since 1970-01-01.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let from_march = (month + 9) % 12;
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(rtc: &mut Rtc, index: u8) -> u8 {
        rtc.write(0, &[index]);
        let mut data = [0];
        rtc.read(1, &mut data);
        data[0]
    }

    fn write(rtc: &mut Rtc, index: u8, value: u8) {
        rtc.write(0, &[index]);
        rtc.write(1, &[value]);
    }

    #[test]
    fn known_moments() {
        let leap = Civil::from_unix(1_709_210_096);
        assert_eq!(
            leap,
            Civil {
                century: 20,
                year_of_century: 24,
                month: 2,
                day: 29,
                weekday: 5,
                hour: 12,
                minute: 34,
                second: 56
            }
        );
    }

    #[test]
    fn time_is_bcd_by_default_and_binary_on_demand() {
        let mut rtc = Rtc::new(64 << 20, 0, 1);
        assert_eq!(read(&mut rtc, CENTURY), 0x20);
        write(&mut rtc, REGISTER_B, B_24_HOURS | B_BINARY);
        assert_eq!(read(&mut rtc, CENTURY), 20);
        assert!((1..=12).contains(&read(&mut rtc, MONTH)));
        assert_eq!(read(&mut rtc, REGISTER_A) & 0x80, 0);
        assert_eq!(read(&mut rtc, REGISTER_D), D_VALID);
    }

    #[test]
    fn a_guest_may_set_the_time() {
        let mut rtc = Rtc::new(64 << 20, 0, 1);
        write(&mut rtc, REGISTER_B, B_24_HOURS | B_BINARY | B_SET);
        for (index, value) in [
            (CENTURY, 19),
            (YEAR, 99),
            (MONTH, 12),
            (DAY, 31),
            (HOURS, 23),
        ] {
            write(&mut rtc, index, value);
        }
        write(&mut rtc, MINUTES, 10);
        write(&mut rtc, SECONDS, 0);
        write(&mut rtc, REGISTER_B, B_24_HOURS | B_BINARY);
        assert_eq!(read(&mut rtc, YEAR), 99);
        assert_eq!(read(&mut rtc, DAY), 31);
        assert_eq!(read(&mut rtc, MINUTES), 10);
    }

    #[test]
    fn memory_sizes_are_where_firmware_looks() {
        let mut rtc = Rtc::new(3 << 30, 2 << 30, 8);
        assert_eq!(read(&mut rtc, 0x5c), 0x80);
        assert_eq!(read(&mut rtc, 0x34), 0x00);
        assert_eq!(read(&mut rtc, 0x35), 0xbf);
        assert_eq!(read(&mut rtc, 0x5f), 7);
    }

    proptest! {
        #[test]
        fn dates_round_trip(seconds in 0_i64..253_402_300_800) {
            let civil = Civil::from_unix(seconds);
            let year = i64::from(civil.century) * 100 + i64::from(civil.year_of_century);
            let days = days_from_civil(year, i64::from(civil.month), i64::from(civil.day));
            prop_assert_eq!(days, seconds / 86_400);
        }

        #[test]
        fn any_writes_are_survived(writes in proptest::collection::vec((0_u64..2, any::<[u8; 2]>()), 0..60)) {
            let mut rtc = Rtc::new(64 << 20, 0, 1);
            let mut data = [0; 4];
            for (offset, bytes) in writes {
                rtc.write(offset, &bytes);
                rtc.read(offset, &mut data);
            }
        }
    }
}
