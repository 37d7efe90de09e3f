//! The database: one row a resource, its document as JSON.
//!
//! WAL with full sync: when [`Store::commit`] returns, the change survives a killed process and power loss.

use std::collections::HashMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, params};

use super::region::Region;
use super::table::Change;
use crate::api::ApiError;
use crate::fault;

/// Form of the database that this program writes and reads.
const FORM: i64 = 1;

/// Why the database could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite says no.
    #[error("the database {path}: {source}")]
    Sqlite {
        /// Where it is.
        path: String,
        /// Why.
        source: rusqlite::Error,
    },
    /// Another program's, or a newer cumulet's.
    #[error(
        "the database {path} has form {form} and this cumulet knows form {FORM}: use the cumulet that made it"
    )]
    Form {
        /// Where it is.
        path: String,
        /// Its form.
        form: i64,
    },
    /// A row that this program did not write.
    #[error("the database {path} is damaged: {kind} {id}: {reason}")]
    Damaged {
        /// Where it is.
        path: String,
        /// Kind of resource.
        kind: String,
        /// Its id.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let full = matches!(&error, StoreError::Sqlite { source, .. }
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull));
        let mend = if full {
            ". Nothing was changed; free space on that file system"
        } else {
            ". Nothing was changed"
        };
        Self::internal(format!("{error}{mend}"))
    }
}

/// The open database.
#[derive(Debug)]
pub(super) struct Store {
    connection: Connection,
    path: String,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        let failed = |source| StoreError::Sqlite {
            path: name.clone(),
            source,
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA locking_mode = EXCLUSIVE;
                 CREATE TABLE IF NOT EXISTS resources (
                     region TEXT NOT NULL, kind TEXT NOT NULL, id TEXT NOT NULL, document TEXT NOT NULL,
                     PRIMARY KEY (region, kind, id)
                 ) WITHOUT ROWID;",
            )
            .map_err(failed)?;
        let form: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(failed)?;
        fault::point("database.made");
        match form {
            0 => connection
                .pragma_update(None, "user_version", FORM)
                .map_err(failed)?,
            FORM => {}
            form => return Err(StoreError::Form { path: name, form }),
        }
        Ok(Self {
            connection,
            path: name,
        })
    }

    fn failed(&self, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite {
            path: self.path.clone(),
            source,
        }
    }

    /// Every region with all its resources.
    pub(super) fn load(&self) -> Result<HashMap<String, Region>, StoreError> {
        let mut regions: HashMap<String, Region> = HashMap::new();
        let mut statement = self
            .connection
            .prepare("SELECT region, kind, id, document FROM resources")
            .map_err(|error| self.failed(error))?;
        let mut rows = statement.query([]).map_err(|error| self.failed(error))?;
        while let Some(row) = rows.next().map_err(|error| self.failed(error))? {
            let get = |index| {
                row.get::<_, String>(index)
                    .map_err(|error| self.failed(error))
            };
            let (region, kind, id, document) = (get(0)?, get(1)?, get(2)?, get(3)?);
            let loaded = regions
                .entry(region.clone())
                .or_insert_with(|| Region::new(&region))
                .load(&kind, &document);
            loaded.map_err(|reason| StoreError::Damaged {
                path: self.path.clone(),
                kind,
                id,
                reason,
            })?;
        }
        Ok(regions)
    }

    /// Writes changes in one transaction.
    pub(super) fn commit(
        &mut self,
        region: &str,
        changes: Vec<(&'static str, Change)>,
    ) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        write(&mut self.connection, region, changes).map_err(|source| StoreError::Sqlite {
            path: self.path.clone(),
            source,
        })
    }
}

fn write(
    connection: &mut Connection,
    region: &str,
    changes: Vec<(&'static str, Change)>,
) -> rusqlite::Result<()> {
    let transaction = connection.transaction()?;
    fault::point("commit.begun");
    {
        let mut put = transaction.prepare_cached(
            "INSERT OR REPLACE INTO resources (region, kind, id, document) VALUES (?1, ?2, ?3, ?4)",
        )?;
        let mut drop = transaction
            .prepare_cached("DELETE FROM resources WHERE region = ?1 AND kind = ?2 AND id = ?3")?;
        for (kind, (id, document)) in changes {
            match document {
                Some(document) => put.execute(params![region, kind, id, document])?,
                None => drop.execute(params![region, kind, id])?,
            };
        }
    }
    fault::point("commit.written");
    transaction.commit()?;
    fault::point("commit.done");
    Ok(())
}
