//! The truth about every instance, on disk.
//!
//! ```text
//! HOME/                     mode 0700, owned by the user
//!   amis/                   the AMI store (cumulet-images)
//!   keys/                   the key pair that is used when no --key is given
//!   imds/                   what signs metadata tokens and identity documents
//!   instances/
//!     .lock                 held for moments: creating, naming, sweeping
//!     i-0123…/
//!       instance.json       the record: state and identity, replaced atomically
//!       lock                held by whoever runs or changes the instance
//!       vol-0123…/          volumes
//!       ephemeral0.raw      scratch disks
//!       console.log  vmm.log  supervisor.log  known_hosts
//!       supervisor.sock  vmm.sock
//!     .gone-i-…             being deleted
//! ```
//!
//! Whether an instance is alive is told by its lock, never by a process id: the kernel drops the
//! lock when the last process that holds it has ended, however it ended.

mod atomic;
mod home;
mod instance;
mod lock;
pub mod record;
mod socket;

pub use atomic::write_atomically;
pub use home::Home;
pub use instance::{Held, InstanceDir, Listed};
pub use lock::{Holder, OwnerLock};
pub use socket::{bind_socket, connect_socket};
