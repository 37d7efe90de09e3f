//! The small devices every PC has: serial port, clock, power management, reset.
//!
//! Each knows nothing of KVM: it sees an interrupt trait and, for the things that concern the
//! whole machine, [`Requests`](crate::requests::Requests).

mod pm;
mod pm_timer;
mod reset;
mod rtc;
mod serial;
mod sink;

pub use pm::{Pm, PmPorts, SLP_TYP_S5};
pub use pm_timer::PmTimer;
pub use reset::{KeyboardReset, ResetControl, SystemControlA};
pub use rtc::{CENTURY_INDEX, Rtc};
pub use serial::{Serial, SerialState, TransmitSink};
pub use sink::{FirmwareDebug, Sink, SystemControlB};
