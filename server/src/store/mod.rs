//! The SQL store: SQLite in WAL mode, one writing connection, several reading ones.
//!
//! A transaction that returns from commit is on the disk: contributions are acknowledged and budgets are
//! debited on that promise, so `synchronous` is FULL.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use crate::failure::{Failure, Result};

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The database. Cloning shares the connections.
#[derive(Clone)]
pub struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
}

/// A write transaction; dropped without commit, it leaves nothing.
pub(crate) type Writing = Transaction<'static, Sqlite>;

impl Store {
    /// Opens or creates the database and brings its schema up to date.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = options(path).create_if_missing(true);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .while_doing(format!("opening {}", path.display()))?;
        sqlx::migrate!("./migrations").run(&writer).await.while_doing("migrating the database")?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .while_doing(format!("opening {}", path.display()))?;
        Ok(Self { writer, readers })
    }

    /// Opens an existing database to look at it, also while a server runs on it.
    pub async fn open_read_only(path: &Path) -> Result<Self> {
        let readers = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options(path).read_only(true))
            .await
            .while_doing(format!("opening {}", path.display()))?;
        Ok(Self { writer: readers.clone(), readers })
    }

    /// Begins the one write transaction; others wait.
    pub(crate) async fn write(&self) -> Result<Writing> {
        self.writer.begin_with("BEGIN IMMEDIATE").await.while_doing("beginning a transaction")
    }

    /// Begins a read that sees one state throughout.
    pub(crate) async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        self.readers.begin().await.while_doing("beginning to read")
    }

    /// Closes all connections and writes the log back into the database file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Commits; when this returns, the change survives a loss of power.
pub(crate) async fn commit(writing: Writing) -> Result<()> {
    writing.commit().await.while_doing("committing")
}

/// A connection inside either kind of transaction.
pub(crate) type Connection = SqliteConnection;

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        // An erased raw sum must not linger in free pages.
        .pragma("secure_delete", "ON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_committed_row_survives_and_a_dropped_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let insert = "INSERT INTO alias_moves (library, patch, alias, actor, reason, at) VALUES ('l','p','a','me','r',1)";
        {
            let store = Store::open(&path).await.unwrap();
            let mut kept = store.write().await.unwrap();
            sqlx::query(insert).execute(&mut *kept).await.unwrap();
            commit(kept).await.unwrap();
            let mut lost = store.write().await.unwrap();
            sqlx::query(insert).execute(&mut *lost).await.unwrap();
            drop(lost);
            store.close().await;
        }
        let store = Store::open(&path).await.unwrap();
        let mut reading = store.read().await.unwrap();
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM alias_moves")
            .fetch_one(&mut *reading)
            .await
            .unwrap();
        assert_eq!(count, 1);
        let mut writing = store.write().await.unwrap();
        let refused = sqlx::query("DELETE FROM alias_moves").execute(&mut *writing).await;
        assert!(refused.unwrap_err().to_string().contains("only grow"));
    }
}
