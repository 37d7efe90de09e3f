//! What the snapshot store asks of the place that keeps its bytes: [`Objects`].

use std::fmt;
use std::io;
use std::time::{Duration, SystemTime};

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    /// Its name within the folder listed.
    pub(super) name: String,
    /// Its length in bytes.
    pub(super) size: u64,
    /// When it was last put or touched, by the clock of the place.
    pub(super) modified: SystemTime,
}

/// Whole objects under names such as `blocks/ab/…`. They are put once, never changed, and deleted.
///
/// * What has been put is durable when the call returns; so is a deletion.
/// * An object appears whole or not at all.
/// * [`Objects::list`] shows every object whose put had returned before, none whose deletion had
///   returned before, and only objects that are durable.
pub(super) trait Objects: Send + Sync + fmt::Debug {
    /// Reads a whole object.
    ///
    /// # Errors
    /// `NotFound`, or the system's own.
    fn get(&self, name: &str) -> io::Result<Vec<u8>>;

    /// Puts an object unless the name is taken; says whether it did.
    fn put_new(&self, name: &str, bytes: &[u8]) -> io::Result<bool>;

    /// Puts objects whose names are known to be free. After an error any of them may be there.
    fn put_all(&self, objects: &[(String, Vec<u8>)]) -> io::Result<()>;

    /// Renews an object's modification time.
    fn touch(&self, name: &str) -> io::Result<()>;

    /// Deletes objects; those that are not there are passed over.
    fn delete_all(&self, names: &[String]) -> io::Result<()>;

    /// The objects of a folder.
    fn list(&self, folder: &str) -> io::Result<Vec<Listed>>;

    /// The time by the clock that dates the objects.
    fn now(&self) -> io::Result<SystemTime>;

    /// Removes what writers that died left half-written longer than `age` ago; says how many.
    fn remove_drafts(&self, age: Duration) -> io::Result<u64>;

    /// Deletes one object, if it is there.
    fn delete(&self, name: &str) -> io::Result<()> {
        self.delete_all(&[name.to_owned()])
    }
}
