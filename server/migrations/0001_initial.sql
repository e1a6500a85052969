-- Every mutable pointer is a row changed by compare-and-swap; what must never change is guarded by triggers.

CREATE TABLE libraries (
    library TEXT PRIMARY KEY,
    descriptor TEXT NOT NULL,
    primary_digest TEXT NOT NULL,
    primary_bytes INTEGER NOT NULL,
    samples_digest TEXT,
    samples_bytes INTEGER,
    catalog_version INTEGER NOT NULL DEFAULT 0,
    imported_at INTEGER NOT NULL
) STRICT;

CREATE TABLE patch_versions (
    library TEXT NOT NULL REFERENCES libraries (library),
    patch TEXT NOT NULL,
    version INTEGER NOT NULL CHECK (version > 0),
    manifest_digest TEXT NOT NULL,
    manifest_bytes INTEGER NOT NULL,
    graph_digest TEXT NOT NULL,
    graph_bytes INTEGER NOT NULL,
    weights_digest TEXT,
    weights_bytes INTEGER,
    -- Identifies the weights whether or not they have a file of their own.
    identity TEXT NOT NULL,
    source TEXT NOT NULL,
    round INTEGER,
    cohort INTEGER,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (library, patch, version)
) STRICT;

CREATE TABLE aliases (
    library TEXT NOT NULL,
    patch TEXT NOT NULL,
    alias TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (library, patch, alias),
    FOREIGN KEY (library, patch, version) REFERENCES patch_versions (library, patch, version)
) STRICT;

CREATE TABLE alias_moves (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    library TEXT NOT NULL,
    patch TEXT NOT NULL,
    alias TEXT NOT NULL,
    version INTEGER,
    previous INTEGER,
    actor TEXT NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;

CREATE TABLE tasks (
    library TEXT NOT NULL REFERENCES libraries (library),
    task TEXT NOT NULL,
    descriptor TEXT NOT NULL,
    -- The server optimiser's velocity, f32 little-endian; empty before the first release.
    momentum BLOB NOT NULL,
    PRIMARY KEY (library, task)
) STRICT;

CREATE TABLE rounds (
    library TEXT NOT NULL,
    task TEXT NOT NULL,
    round INTEGER NOT NULL CHECK (round > 0),
    phase TEXT NOT NULL CHECK (phase IN ('open', 'full', 'reserved', 'noised', 'published')),
    base TEXT NOT NULL,
    base_versions TEXT NOT NULL,
    parameters INTEGER NOT NULL,
    -- The task's descriptor when the round was opened: what its devices were promised.
    terms TEXT NOT NULL,
    contributions INTEGER NOT NULL DEFAULT 0,
    -- i64 little-endian. The raw sum is erased in the transaction that keeps the noised one.
    sum BLOB,
    noised BLOB,
    rejected TEXT NOT NULL DEFAULT '{}',
    versions TEXT,
    update_norm REAL,
    opened_at INTEGER NOT NULL,
    released_at INTEGER,
    PRIMARY KEY (library, task, round),
    FOREIGN KEY (library, task) REFERENCES tasks (library, task)
) STRICT;

CREATE TABLE nullifiers (
    library TEXT NOT NULL,
    task TEXT NOT NULL,
    nullifier BLOB NOT NULL,
    digest BLOB NOT NULL,
    round INTEGER NOT NULL,
    PRIMARY KEY (library, task, nullifier)
) STRICT, WITHOUT ROWID;

CREATE TABLE ledger (
    sequence INTEGER PRIMARY KEY CHECK (sequence > 0),
    at INTEGER NOT NULL,
    task TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('reserve', 'noise', 'publish', 'lose')),
    round INTEGER NOT NULL,
    rho INTEGER NOT NULL,
    cumulative_rho INTEGER NOT NULL,
    detail TEXT NOT NULL,
    previous TEXT NOT NULL,
    hash TEXT NOT NULL
) STRICT;
CREATE INDEX ledger_by_task ON ledger (task, kind);

CREATE TABLE experiments (
    -- Also the seed of the assignment.
    seed INTEGER PRIMARY KEY AUTOINCREMENT,
    library TEXT NOT NULL REFERENCES libraries (library),
    experiment TEXT NOT NULL,
    layer TEXT NOT NULL,
    patch TEXT NOT NULL,
    salt TEXT NOT NULL,
    arms TEXT NOT NULL,
    epsilon REAL NOT NULL,
    window INTEGER NOT NULL,
    mixture REAL NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('running', 'stopped')),
    reason TEXT NOT NULL DEFAULT '',
    started_at INTEGER NOT NULL,
    stopped_at INTEGER,
    UNIQUE (library, experiment)
) STRICT;
-- One running experiment per library.
CREATE UNIQUE INDEX experiments_running ON experiments (library) WHERE state = 'running';

CREATE TABLE reports (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    seed INTEGER NOT NULL REFERENCES experiments (seed),
    arm TEXT NOT NULL,
    outcome INTEGER NOT NULL CHECK (outcome IN (0, 1)),
    nullifier BLOB NOT NULL,
    UNIQUE (seed, nullifier)
) STRICT;
CREATE INDEX reports_by_arm ON reports (seed, arm, sequence);

CREATE TRIGGER ledger_update BEFORE UPDATE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER ledger_delete BEFORE DELETE ON ledger BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER moves_update BEFORE UPDATE ON alias_moves BEGIN SELECT RAISE(ABORT, 'alias moves only grow'); END;
CREATE TRIGGER moves_delete BEFORE DELETE ON alias_moves BEGIN SELECT RAISE(ABORT, 'alias moves only grow'); END;
CREATE TRIGGER versions_update BEFORE UPDATE ON patch_versions BEGIN SELECT RAISE(ABORT, 'versions never change'); END;
CREATE TRIGGER versions_delete BEFORE DELETE ON patch_versions BEGIN SELECT RAISE(ABORT, 'versions never change'); END;
